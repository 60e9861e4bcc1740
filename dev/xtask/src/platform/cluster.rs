//! The Kubernetes cluster: kind where Docker and kind are on the machine, else the bundled one.
//!
//! Either way there is one to a machine. A file in the state folder says which checkout's platforms use it.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use xshell::{Cmd, cmd};

use super::process::write_private;
use crate::{
    project::{Project, base_dir},
    steps::wait_for,
    tools,
};

/// The name of the kind cluster.
const KIND: &str = "popularity-reports";

/// A cluster of one of the two sorts.
pub struct Cluster<'p> {
    project: &'p Project,
    sort: Sort,
    /// kind's program.
    kind: PathBuf,
    /// The image of kind's node, when it is not to be the one that this kind is made for.
    node_image: Option<String>,
    /// Who uses it, with the reason that another checkout cannot.
    owner_file: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    /// `dev/cluster`
    Bundled,
    Kind,
}

/// Which checkout has the machine's cluster, and for which of its platforms.
#[derive(Serialize, Deserialize)]
struct Owner {
    checkout: PathBuf,
    platforms: Vec<PathBuf>,
    /// Whether a platform started the cluster, and so stops it; one that was there before is left as it was.
    started: bool,
}

impl<'p> Cluster<'p> {
    pub fn new(project: &'p Project) -> Self {
        let sh = &project.sh;
        let has_kind = tools::on_path(project, "kind")
            && tools::on_path(project, "docker")
            && cmd!(sh, "docker info")
                .quiet()
                .ignore_stdout()
                .ignore_stderr()
                .run()
                .is_ok();
        let sort = if has_kind { Sort::Kind } else { Sort::Bundled };
        Self {
            project,
            sort,
            kind: "kind".into(),
            node_image: None,
            owner_file: project.state.join("cluster.json"),
        }
    }

    /// The kind cluster, made by the program `kind`; its node is of `node_image`, or of the image that this
    /// kind is made for.
    pub fn kind(project: &'p Project, kind: PathBuf, node_image: Option<String>) -> Self {
        Self {
            sort: Sort::Kind,
            kind,
            node_image,
            ..Self::new(project)
        }
    }

    /// Starts the cluster for the platform in `dir`, or joins the one that is up.
    ///
    /// # Errors
    /// When another checkout has the cluster, or it does not start.
    pub fn up(&self, dir: &Path) -> Result<()> {
        let _lock = self.lock()?;
        let was_up = self.is_up();
        let mut owner = match self.owner()? {
            Some(owner) if was_up && owner.checkout != self.project.root => bail!(
                "the cluster of this machine, and there can be only one, is in use by the checkout {0}: \
                 run `cargo xtask down` there first",
                owner.checkout.display()
            ),
            Some(owner) if was_up => owner,
            // the file outlived the cluster, in a crash or at a restart of the machine
            _ => Owner {
                checkout: self.project.root.clone(),
                platforms: Vec::new(),
                started: !was_up,
            },
        };
        if !owner.platforms.iter().any(|platform| platform == dir) {
            owner.platforms.push(dir.to_owned());
        }
        // written first: after a crash in the middle of the start, `down` still knows whose it is
        write_private(&self.owner_file, &serde_json::to_string(&owner)?)?;
        self.start()
    }

    /// Names of Services, by which `helm test` asks the API.
    fn need_dns(&self) -> Result<()> {
        let get = self
            .kubectl()?
            .args(["--namespace", "kube-system", "get", "deployment", "coredns"]);
        if get.quiet().ignore_stdout().ignore_stderr().run().is_ok() {
            return Ok(());
        }
        Ok(cmd!(self.project.sh, "dev/cluster/cluster dns").run()?)
    }

    fn start(&self) -> Result<()> {
        let (sh, kind) = (&self.project.sh, &self.kind);
        match self.sort {
            Sort::Bundled => {
                cmd!(sh, "dev/cluster/cluster up").run()?;
                self.need_dns()
            }
            Sort::Kind if self.is_up() => Ok(()),
            Sort::Kind => {
                let kubeconfig = self.kubeconfig()?;
                let image = self.node_image.as_ref().map(|image| format!("--image={image}"));
                Ok(cmd!(
                    sh,
                    "{kind} create cluster --name {KIND} --config kind-config.yaml {image...}
                     --kubeconfig {kubeconfig} --wait 180s"
                )
                .run()?)
            }
        }
    }

    /// Leaves the cluster; stops it when the platform in `dir` was the last to use it and it was a platform
    /// that started it.
    ///
    /// # Errors
    /// When it cannot be stopped.
    pub fn down(&self, dir: &Path) -> Result<()> {
        let _lock = self.lock()?;
        let Some(mut owner) = self.owner()? else {
            return Ok(());
        };
        if owner.checkout != self.project.root {
            return Ok(());
        }
        owner.platforms.retain(|platform| platform != dir);
        if !owner.platforms.is_empty() {
            eprintln!("   the cluster stays up: another platform of this checkout uses it");
            return write_private(&self.owner_file, &serde_json::to_string(&owner)?);
        }
        if owner.started {
            let (sh, kind) = (&self.project.sh, &self.kind);
            match self.sort {
                Sort::Bundled => cmd!(sh, "dev/cluster/cluster down").run()?,
                Sort::Kind => {
                    let kubeconfig = self.kubeconfig()?;
                    cmd!(
                        sh,
                        "{kind} delete cluster --name {KIND} --kubeconfig {kubeconfig}"
                    )
                    .run()?;
                }
            }
        } else {
            eprintln!("   the cluster stays up: no platform started it");
        }
        Ok(fs::remove_file(&self.owner_file)?)
    }

    /// Held while the cluster is started, joined or left: by one platform of the machine at a time.
    fn lock(&self) -> Result<File> {
        fs::create_dir_all(&self.project.state)?;
        let lock = File::create(self.owner_file.with_extension("lock"))?;
        lock.lock()?;
        Ok(lock)
    }

    /// Whether all of it runs.
    pub fn is_up(&self) -> bool {
        let (sh, kind) = (&self.project.sh, &self.kind);
        match self.sort {
            Sort::Bundled => cmd!(sh, "dev/cluster/cluster status")
                .quiet()
                .ignore_stdout()
                .ignore_stderr()
                .run()
                .is_ok(),
            Sort::Kind => cmd!(sh, "{kind} get clusters")
                .quiet()
                .ignore_stderr()
                .read()
                .is_ok_and(|names| names.lines().any(|name| name == KIND)),
        }
    }

    fn owner(&self) -> Result<Option<Owner>> {
        match fs::read_to_string(&self.owner_file) {
            Ok(text) => {
                Ok(Some(serde_json::from_str(&text).with_context(|| {
                    format!("cannot read {}", self.owner_file.display())
                })?))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The administrator's kubeconfig.
    ///
    /// # Errors
    /// When there is no place for it.
    pub fn kubeconfig(&self) -> Result<PathBuf> {
        match self.sort {
            Sort::Bundled => Ok(cmd!(self.project.sh, "dev/cluster/cluster kubeconfig")
                .quiet()
                .read()?
                .into()),
            Sort::Kind => Ok(self.project.state.join("kind.kubeconfig")),
        }
    }

    /// kubectl, as this cluster's administrator.
    ///
    /// # Errors
    /// When there is no kubeconfig.
    pub fn kubectl(&self) -> Result<Cmd<'p>> {
        Ok(self
            .project
            .sh
            .cmd(self.kubectl_program()?)
            .env("KUBECONFIG", self.kubeconfig()?))
    }

    /// Has NetworkPolicies enforced from now on, and says whether a test can look into the Pods' networks: it can
    /// where containers are processes of this machine, as the bundled cluster's are.
    ///
    /// # Errors
    /// When what enforces them cannot be built or started.
    pub fn enforce_network_policies(&self) -> Result<bool> {
        if self.sort == Sort::Bundled {
            cmd!(self.project.sh, "dev/cluster/cluster netpol").run()?;
        }
        Ok(self.sort == Sort::Bundled)
    }

    /// Where the API server writes down what service accounts ask of it; none for kind's.
    ///
    /// # Errors
    /// When the cluster's script cannot be run.
    pub fn audit_log(&self) -> Result<Option<PathBuf>> {
        if self.sort == Sort::Kind {
            return Ok(None);
        }
        let path = cmd!(self.project.sh, "dev/cluster/cluster audit")
            .quiet()
            .read()?;
        Ok(Some(path.into()))
    }

    /// The program: the bundled cluster's own is `kc` under another name.
    ///
    /// # Errors
    /// When it is not there and cannot be built.
    pub fn kubectl_program(&self) -> Result<PathBuf> {
        if self.sort == Sort::Kind && tools::on_path(self.project, "kubectl") {
            return Ok("kubectl".into());
        }
        let kc = kc(self.project)?;
        let kubectl = kc.with_file_name("kubectl");
        if !kubectl.exists() {
            std::os::unix::fs::symlink(&kc, &kubectl)?;
        }
        Ok(kubectl)
    }

    /// Brings the image in a docker-archive onto the node.
    ///
    /// # Errors
    /// When the node does not take it.
    pub fn load(&self, archive: &Path) -> Result<()> {
        let (sh, kind) = (&self.project.sh, &self.kind);
        match self.sort {
            Sort::Bundled => Ok(cmd!(sh, "dev/cluster/cluster load {archive}")
                .ignore_stdout()
                .run()?),
            Sort::Kind => Ok(cmd!(sh, "{kind} load image-archive {archive} --name {KIND}").run()?),
        }
    }

    /// Brings images that Docker has onto kind's node.
    ///
    /// # Errors
    /// When Docker has not got one of them, or the node does not take it.
    pub fn load_from_docker(&self, images: &[String]) -> Result<()> {
        let kind = &self.kind;
        Ok(cmd!(
            self.project.sh,
            "{kind} load docker-image {images...} --name {KIND}"
        )
        .run()?)
    }

    /// The address at which pods reach programs on this machine.
    ///
    /// # Errors
    /// When Docker does not tell the gateway of kind's network.
    pub fn host_address(&self) -> Result<String> {
        match self.sort {
            Sort::Bundled => Ok("172.30.0.1".into()),
            Sort::Kind => {
                let format = "{{range .IPAM.Config}}{{println .Gateway}}{{end}}";
                let gateways = cmd!(self.project.sh, "docker network inspect kind --format {format}")
                    .quiet()
                    .read()?;
                let v4 = gateways.lines().find(|gateway| gateway.contains('.'));
                v4.map(str::to_owned)
                    .context("the network of kind has no IPv4 gateway")
            }
        }
    }

    /// Where `kind-config.yaml` publishes the API's port of the node; nowhere on the bundled cluster, whose
    /// Services this machine reaches.
    pub fn published_api(&self) -> Option<&'static str> {
        match self.sort {
            Sort::Bundled => None,
            Sort::Kind => Some("http://127.0.0.1:18080"),
        }
    }

    /// The networks that connections of pods come from, as programs on this machine see them.
    ///
    /// # Errors
    /// When Docker does not tell kind's networks.
    pub fn pod_networks(&self) -> Result<Vec<String>> {
        match self.sort {
            Sort::Bundled => Ok(vec!["10.244.0.0/24".into()]),
            // the node hides its pods behind its own address
            Sort::Kind => {
                let format = "{{range .IPAM.Config}}{{println .Subnet}}{{end}}";
                let subnets = cmd!(self.project.sh, "docker network inspect kind --format {format}")
                    .quiet()
                    .read()?;
                Ok(subnets
                    .lines()
                    .filter(|subnet| subnet.contains('.'))
                    .map(str::to_owned)
                    .collect())
            }
        }
    }

    /// Waits until the node takes pods: the account that they run under is there.
    ///
    /// # Errors
    /// When that takes too long.
    pub fn wait_ready(&self) -> Result<()> {
        wait_for(
            "the cluster's default service account",
            Duration::from_secs(60),
            || {
                let get = self
                    .kubectl()?
                    .args(["-n", "default", "get", "serviceaccount", "default"]);
                Ok(get.quiet().ignore_stdout().ignore_stderr().run().is_ok())
            },
        )
    }
}

/// The program that the bundled cluster is made of, which also writes images; built when it is not there.
///
/// # Errors
/// When it cannot be built.
pub fn kc(project: &Project) -> Result<PathBuf> {
    let kc = kc_folder()?.join("bin/kc");
    if !kc.exists() {
        tools::need_go(project)?;
        cmd!(project.sh, "dev/cluster/cluster build").run()?;
    }
    Ok(kc)
}

/// The folder of the bundled cluster's programs and state.
///
/// # Errors
/// When there is no home folder.
pub fn kc_folder() -> Result<PathBuf> {
    match std::env::var_os("KC_DIR") {
        Some(dir) if !dir.is_empty() => Ok(dir.into()),
        _ => Ok(base_dir("XDG_STATE_HOME", ".local/state")?.join("kc")),
    }
}
