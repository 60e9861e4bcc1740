//! Docker's engine in namespaces of its own (`dev/kind/engine`), and commands inside them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use xshell::{Cmd, cmd};

use crate::{project::Project, steps::wait_for};

/// The folder of all its containers, in each hierarchy of cgroups.
const CGROUP: &str = "popularity-reports-kind";

/// kind mounts it into each node, and Docker makes it where there is none.
const MODULES: &str = "/lib/modules";

/// A running engine; dropping it ends it with all that runs on it.
pub struct Engine<'p> {
    project: &'p Project,
    folder: PathBuf,
    /// `unshare`, whose end is the end of the namespaces.
    process: Child,
    /// The first process inside.
    first: Pid,
    /// Whether the machine had the folder before.
    had_modules: bool,
}

impl<'p> Engine<'p> {
    /// Starts it, with what it keeps from one time to the next (images) in `folder`.
    ///
    /// # Errors
    /// When it does not answer; with the end of its log.
    pub fn start(project: &'p Project, folder: &Path, runtime: &Path) -> Result<Self> {
        let had_modules = Path::new(MODULES).exists();
        let log = folder.join("engine.log");
        let out = fs::File::create(&log)?;
        remove_cgroups()?; // of one that was killed
        for stale in ["exec", "pid", "docker.sock"] {
            let path = folder.join(stale);
            if path.is_dir() {
                fs::remove_dir_all(path)?;
            } else if path.exists() {
                fs::remove_file(path)?;
            }
        }
        let mut process = Command::new("setpriv")
            // should this task be killed, the engine goes with it
            .args([
                "--pdeathsig",
                "KILL",
                "unshare",
                "--net",
                "--mount",
                "--pid",
                "--fork",
            ])
            .args(["--mount-proc", "--kill-child"])
            .arg(project.root.join("dev/kind/engine"))
            .arg(folder)
            .arg(runtime)
            .arg(format!("/{CGROUP}"))
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .context("cannot start unshare")?;
        let first = first_child(&mut process).context("the engine's namespaces do not start")?;
        let engine = Self {
            project,
            folder: folder.to_owned(),
            process,
            first,
            had_modules,
        };
        let ready = wait_for("the engine", Duration::from_secs(60), || {
            if rustix::process::test_kill_process(first).is_err() {
                bail!("it has ended");
            }
            let info = engine.docker(&["info"]).quiet();
            Ok(info.ignore_stdout().ignore_stderr().run().is_ok())
        });
        ready.with_context(|| format!("its log: {}", log.display()))?;
        engine.forget_containers()?;
        Ok(engine)
    }

    /// Docker's client on it.
    pub fn docker(&self, args: &[&str]) -> Cmd<'p> {
        let docker = self.project.sh.cmd(DOCKER);
        docker.env("DOCKER_HOST", self.host()).args(args)
    }

    fn host(&self) -> String {
        format!("unix://{}/docker.sock", self.folder.display())
    }

    pub fn has_image(&self, name: &str) -> bool {
        let inspect = self.docker(&["image", "inspect", name]).quiet();
        inspect.ignore_stdout().ignore_stderr().run().is_ok()
    }

    /// Removes all images of the repository.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn remove_images(&self, repository: &str) -> Result<()> {
        let images = self
            .docker(&["image", "ls", "--quiet", repository])
            .quiet()
            .read()?;
        for image in images.lines() {
            self.docker(&["image", "rm", "--force", image])
                .ignore_stdout()
                .run()?;
        }
        Ok(())
    }

    /// What an engine that was killed still has.
    fn forget_containers(&self) -> Result<()> {
        let containers = self.docker(&["ps", "--all", "--quiet"]).quiet().read()?;
        for container in containers.lines() {
            self.docker(&["rm", "--force", "--volumes", container])
                .ignore_stdout()
                .run()?;
        }
        for kind in ["network", "volume"] {
            self.docker(&[kind, "prune", "--force"])
                .quiet()
                .ignore_stdout()
                .run()?;
        }
        Ok(())
    }

    /// A program in the engine's namespaces, as on a machine that has Docker: with a state folder of its own, since the
    /// machine's cluster is another one.
    ///
    /// # Errors
    /// When the state folder cannot be made.
    pub fn inside(&self, program: &Path) -> Result<Cmd<'p>> {
        let kc = crate::platform::cluster::kc_folder()?;
        let bin = self.folder.join("bin");
        let docker = bin.join("docker");
        fs::create_dir_all(&bin)?;
        if !docker.exists() {
            std::os::unix::fs::symlink(DOCKER, &docker)?;
        }
        let path = self.project.sh.var("PATH")?;
        let first = self.first.as_raw_nonzero().to_string();
        Ok(cmd!(
            self.project.sh,
            "nsenter --target {first} --net --mount --pid --wd=. {program}"
        )
        .env("DOCKER_HOST", self.host())
        .env("PATH", format!("{}:{path}", bin.display()))
        .env("KC_DIR", kc)
        .env("XDG_STATE_HOME", self.folder.join("state"))
        .env("CARGO_NET_OFFLINE", "true"))
    }

    /// Prints how the pods of the cluster are, for who reads why the task has failed.
    pub fn show_pods(&self) {
        for what in ["get pods", "get events", "describe pods", "logs"] {
            let mut show = self
                .docker(&["exec", "popularity-reports-control-plane", "kubectl"])
                .args(what.split(' '));
            show = match what {
                "logs" => show.args([
                    "--namespace=popularity-reports",
                    "--selector=app.kubernetes.io/name",
                    "--prefix",
                ]),
                _ => show.arg("--all-namespaces"),
            };
            let show = show.arg("--kubeconfig=/etc/kubernetes/admin.conf");
            if let Err(error) = show.run() {
                eprintln!("   cannot show it: {error}");
            }
        }
    }

    /// Stops it as it likes, removes what it made outside its namespaces.
    ///
    /// # Errors
    /// When something of it cannot be removed.
    pub fn stop(mut self) -> Result<()> {
        self.forget_containers()?;
        kill_process(self.first, Signal::TERM)?;
        wait_for("the engine to stop", Duration::from_secs(20), || {
            Ok(self.process.try_wait()?.is_some())
        })?;
        remove_cgroups()?;
        let state = self.folder.join("state");
        if state.exists() {
            fs::remove_dir_all(state)?;
        }
        if !self.had_modules && Path::new(MODULES).exists() {
            fs::remove_dir(MODULES)?;
        }
        Ok(())
    }
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        // after stop() it has ended already
        if matches!(self.process.try_wait(), Ok(None)) {
            drop(self.process.kill());
            drop(self.process.wait());
        }
    }
}

/// Debian's client, and not another one that may be on the PATH.
const DOCKER: &str = "/usr/bin/docker";

/// The process that `unshare` starts.
fn first_child(unshare: &mut Child) -> Result<Pid> {
    let list = format!("/proc/{0}/task/{0}/children", unshare.id());
    let mut child = None;
    wait_for("its first process", Duration::from_secs(10), || {
        if unshare.try_wait()?.is_some() {
            bail!("unshare has ended");
        }
        child = fs::read_to_string(&list)?
            .split_whitespace()
            .next()
            .and_then(|pid| pid.parse().ok());
        Ok(child.is_some())
    })?;
    child.and_then(Pid::from_raw).context("no process")
}

/// Removes the engine's folders, which are empty when its processes have ended.
fn remove_cgroups() -> Result<()> {
    for hierarchy in fs::read_dir("/sys/fs/cgroup")? {
        let folder = hierarchy?.path().join(CGROUP);
        if folder.is_dir() {
            wait_for(
                "the engine's cgroups to be empty",
                Duration::from_secs(10),
                || Ok(remove_empty(&folder).is_ok()),
            )?;
        }
    }
    Ok(())
}

fn remove_empty(folder: &Path) -> std::io::Result<()> {
    // a process that was killed while runc had it frozen ends only when it is thawed
    let freezer = folder.join("freezer.state");
    if freezer.exists() {
        fs::write(freezer, "THAWED")?;
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_empty(&entry.path())?;
        }
    }
    fs::remove_dir(folder)
}
