//! The local platform: a cluster with the product installed on it, and what else the product needs as processes
//! of this machine. It knows what it started and stops exactly that.

pub mod azurite;
pub mod cluster;
pub mod postgres;
pub mod process;
mod release;
pub mod servicebus;
pub mod settings;

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use anyhow::{Result, bail};
use xshell::{Cmd, cmd};

use crate::{images, project::Project, steps::step, token, tools};
use cluster::Cluster;
use postgres::Login;
use process::Processes;
use release::Release;
use settings::Settings;

/// The namespace that the demonstration's reports live in.
pub const NAMESPACE: &str = "popularity-reports";

/// The user of the demonstration's tokens.
pub const USER: &str = "5f2c1a7e-3d84-4b6f-9a10-2c7d8e9f0a1b";

/// The administrator of the demonstration's tokens.
const ADMIN: &str = "0b9d3c52-7e16-4f8a-b2c4-6d1e5f7a8b90";

/// How long those tokens are good for.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);

/// Which of a checkout's platforms: they share the cluster and nothing else.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Instance {
    /// The one of `cargo xtask up`: with sample data, API and operator.
    Dev,
    /// The one of `cargo xtask test`: what the product runs on; the tests start the product themselves.
    Test,
}

/// How much sample data `up` loads into an empty catalogue.
#[derive(clap::Args, Clone, Copy)]
pub struct Sample {
    /// Albums in the sample catalogue; loaded once, into an empty catalogue
    #[arg(long, default_value_t = 20_000)]
    pub albums: u32,
    /// Ratings in the sample catalogue
    #[arg(long, default_value_t = 500_000)]
    pub ratings: u32,
    /// Another seed gives other sample data
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// What every part of a platform needs.
pub struct Base<'p> {
    pub project: &'p Project,
    /// The platform's folder.
    pub dir: PathBuf,
    pub settings: Settings,
    pub processes: Processes,
}

/// One platform of this checkout.
pub struct Platform<'p> {
    base: Base<'p>,
    instance: Instance,
    cluster: Cluster<'p>,
    /// Held while this lives: two tasks on one platform would undo each other's work.
    _lock: Option<File>,
}

impl<'p> Platform<'p> {
    /// The platform, to change it; waits for another task that does so.
    ///
    /// # Errors
    /// When its folder cannot be used.
    pub fn open(project: &'p Project, instance: Instance) -> Result<Self> {
        let mut platform = Self::read(project, instance)?;
        let lock = File::create(platform.base.dir.join("lock"))?;
        if lock.try_lock().is_err() {
            eprintln!("   waiting for another task that works on this platform");
            lock.lock()?;
        }
        platform._lock = Some(lock);
        Ok(platform)
    }

    /// The platform, only to look at it.
    ///
    /// # Errors
    /// When its folder cannot be used.
    pub fn read(project: &'p Project, instance: Instance) -> Result<Self> {
        let name = match instance {
            Instance::Dev => "dev",
            Instance::Test => "test",
        };
        let dir = project.root.join(".platform").join(name);
        fs::create_dir_all(dir.join("log"))?;
        // PostgreSQL's account passes through to its data; the secrets are in files that only the owner reads
        for folder in [project.root.join(".platform"), dir.clone()] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o711))?;
        }
        Ok(Self {
            base: Base {
                project,
                settings: Settings::load(&dir)?,
                processes: Processes::new(&dir),
                dir,
            },
            instance,
            cluster: Cluster::new(project),
            _lock: None,
        })
    }

    /// Builds and starts what is not running, the product too. What is up and has not changed stays as it is;
    /// what died is started again.
    ///
    /// # Errors
    /// When a step fails: which, why, and which log tells more.
    pub fn up(&self, sample: Sample) -> Result<()> {
        tools::need_packages(self.base.project)?;
        images::build_programs(self.base.project, "dev")?;
        let images = images::write(self.base.project, "dev", images::DEV)?;
        self.up_neighbours(&images)?;
        step("start the Service Bus emulator", || {
            servicebus::up(&self.base, &self.cluster.host_address()?)
        })?;
        self.load_sample(sample)?;
        step("let the programs' roles in", || postgres::grant(&self.base))?;
        step("install the chart", || self.release().up(&images))
    }

    /// Starts the cluster, with the product's images on its node, PostgreSQL and Azurite.
    ///
    /// # Errors
    /// As [`up`](Self::up).
    pub fn up_neighbours(&self, images: &[images::Image]) -> Result<()> {
        tools::need_packages(self.base.project)?;
        step("start the cluster", || {
            self.cluster.up(&self.base.dir)?;
            self.cluster.wait_ready()
        })?;
        step("load the images into the cluster", || {
            images
                .iter()
                .try_for_each(|image| self.cluster.load(&image.archive))
        })?;
        step("start PostgreSQL", || {
            postgres::up(
                &self.base,
                &self.cluster.host_address()?,
                &self.cluster.pod_networks()?,
            )
        })?;
        step("start Azurite", || azurite::up(&self.base))
    }

    /// Gives `run` an empty database on this platform's PostgreSQL, which is started for it alone when it
    /// does not run; then removes the database. `run` gets psql on it, and its URL.
    ///
    /// # Errors
    /// What `run` fails with, or when there cannot be such a database.
    pub fn with_scratch_database(
        &self,
        run: impl FnOnce(&dyn Fn() -> Cmd<'p>, &str) -> Result<()>,
    ) -> Result<()> {
        const NAME: &str = "scratch";
        tools::need_packages(self.base.project)?;
        let was_up = self.base.processes.running(postgres::NAME).is_some();
        if !was_up {
            postgres::up(&self.base, LOOPBACK, &[])?;
        }
        let server = || postgres::psql(&self.base, "postgres").arg("--quiet").quiet();
        let drop = format!("DROP DATABASE IF EXISTS {NAME} WITH (FORCE)");
        let drop = || {
            server()
                .env("PGOPTIONS", "--client-min-messages=warning")
                .args(["--command", &drop])
                .run()
        };
        drop()?;
        server()
            .args(["--command", &format!("CREATE DATABASE {NAME}")])
            .run()?;
        let done = run(
            &|| postgres::psql(&self.base, NAME),
            &postgres::superuser_url(&self.base, NAME),
        );
        drop()?;
        if !was_up {
            postgres::down(&self.base)?;
        }
        done
    }

    /// Stops all that this platform started, in the order that lets each finish its work.
    ///
    /// # Errors
    /// When something cannot be stopped.
    pub fn down(&self) -> Result<()> {
        if self.instance == Instance::Dev {
            step("uninstall the chart", || self.release().down())?;
        }
        step("stop the programs", || {
            for (name, signal) in [
                (servicebus::NAME, servicebus::STOP),
                (azurite::NAME, azurite::STOP),
                (postgres::NAME, postgres::STOP),
            ] {
                self.base.processes.stop(name, signal)?;
            }
            self.base.processes.stop_strays()
        })?;
        step("leave the cluster", || self.cluster.down(&self.base.dir))
    }

    /// Removes what outlives [`down`](Self::down): databases, blobs, messages, logs, ports and secrets.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn forget(self) -> Result<()> {
        let postgres = self.base.dir.join("postgres");
        if postgres.is_symlink() {
            fs::remove_dir_all(fs::canonicalize(&postgres)?)?;
        }
        Ok(fs::remove_dir_all(&self.base.dir)?)
    }

    /// One line for each part: whether it runs, and where its log is.
    ///
    /// # Errors
    /// When one does not run.
    pub fn status(&self) -> Result<()> {
        let mut missing = Vec::new();
        for name in [postgres::NAME, azurite::NAME, servicebus::NAME] {
            let state = match self.base.processes.running(name) {
                Some(pid) => format!("running, process {pid}"),
                None => {
                    missing.push(name);
                    "not running".to_owned()
                }
            };
            println!(
                "{name:20} {state:24} {}",
                self.base.project.shown(&self.base.processes.log(name))
            );
        }
        let up = self.cluster.is_up();
        println!("{:20} {}", "cluster", if up { "running" } else { "not running" });
        if up {
            for part in release::DEPLOYMENTS {
                let (ready, wanted) = self.release().ready(part)?;
                let state = format!("{ready} of {wanted} Pods ready");
                println!("{part:20} {state:24} cargo xtask logs {part}");
                if ready < wanted || wanted == 0 {
                    missing.push(part);
                }
            }
        } else {
            missing.push("cluster");
        }
        if missing.is_empty() {
            return Ok(());
        }
        bail!(
            "not running: {}; `cargo xtask up` starts what is missing",
            missing.join(", ")
        )
    }

    /// Follows the log of one part, or of all programs of this machine.
    ///
    /// # Errors
    /// When there is no such log.
    pub fn logs(&self, name: Option<&str>) -> Result<()> {
        if let Some(part) = name.filter(|name| release::DEPLOYMENTS.contains(name)) {
            return self.release().logs(part);
        }
        let folder = self.base.dir.join("log");
        let mut logs = Vec::new();
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if name.is_none_or(|name| path.file_stem().is_some_and(|stem| stem == name)) {
                logs.push(path);
            }
        }
        if logs.is_empty() {
            bail!("no such log in {}", self.base.project.shown(&folder));
        }
        Ok(cmd!(self.base.project.sh, "tail -n 50 -F {logs...}").run()?)
    }

    /// What programs and people need to reach this platform, by variable.
    ///
    /// # Errors
    /// When the kubeconfig or a token cannot be made.
    pub fn env(&self) -> Result<Vec<(&'static str, String)>> {
        let key = &self.base.settings.secrets.jwt_key;
        let now = SystemTime::now();
        let url = |login| postgres::url(&self.base, login, LOOPBACK);
        let admin = match self.instance {
            Instance::Dev => url(Login::Owner),
            // the tests make databases and roles of their own
            Instance::Test => postgres::superuser_url(&self.base, "postgres"),
        };
        let mut env = vec![
            ("KUBECONFIG", self.cluster.kubeconfig()?.display().to_string()),
            ("REPORTS_DATABASE_URL", url(Login::Api)),
            ("CATALOG_DATABASE_URL", url(Login::Exporter)),
            ("ADMIN_DATABASE_URL", admin),
            (
                "AZURE_STORAGE_CONNECTION_STRING",
                azurite::connection_string(&self.base, LOOPBACK),
            ),
            // where pods reach what listens on this machine
            ("PODS_HOST", self.cluster.host_address()?),
        ];
        if self.instance == Instance::Dev {
            env.push((
                "SERVICEBUS_CONNECTION_STRING",
                servicebus::connection_string(&self.base, LOOPBACK),
            ));
            env.insert(0, ("API_URL", self.release().api_url()?));
            env.insert(
                1,
                ("API_TOKEN", token::mint(key, USER, false, now, TOKEN_LIFETIME)?),
            );
            env.insert(
                2,
                (
                    "API_ADMIN_TOKEN",
                    token::mint(key, ADMIN, true, now, TOKEN_LIFETIME)?,
                ),
            );
        }
        Ok(env)
    }

    /// [`env`](Self::env) as shell exports.
    ///
    /// # Errors
    /// As there, and when the platform is not up.
    pub fn print_env(&self) -> Result<()> {
        if self.base.processes.running(postgres::NAME).is_none() {
            bail!("the platform is not up: cargo xtask up");
        }
        for (name, value) in self.env()? {
            println!("export {name}={}", quoted(&value));
        }
        if !tools::on_path(self.base.project, "kubectl")
            && let Some(folder) = self.kubectl_program()?.parent()
        {
            println!("export PATH={}:\"$PATH\"", quoted(&folder.display().to_string()));
        }
        Ok(())
    }

    /// kubectl on this platform's cluster.
    ///
    /// # Errors
    /// When there is no kubeconfig.
    pub fn kubectl(&self) -> Result<Cmd<'p>> {
        self.cluster.kubectl()
    }

    /// The program that [`kubectl`](Self::kubectl) is.
    ///
    /// # Errors
    /// When it is not there and cannot be built.
    pub fn kubectl_program(&self) -> Result<PathBuf> {
        self.cluster.kubectl_program()
    }

    fn load_sample(&self, sample: Sample) -> Result<()> {
        let Sample {
            albums,
            ratings,
            seed,
        } = sample;
        step(
            &format!("load the sample catalogue ({albums} albums, {ratings} ratings)"),
            || {
                let program = self.base.project.built("dev", "sample-data");
                let (albums, ratings, seed) = (albums.to_string(), ratings.to_string(), seed.to_string());
                Ok(cmd!(
                    self.base.project.sh,
                    "{program} --keep --albums {albums} --ratings {ratings} --seed {seed}"
                )
                .env(
                    "ADMIN_DATABASE_URL",
                    postgres::url(&self.base, Login::Owner, LOOPBACK),
                )
                .run()?)
            },
        )
    }

    fn release(&self) -> Release<'_, 'p> {
        Release {
            base: &self.base,
            cluster: &self.cluster,
        }
    }
}

const LOOPBACK: &str = "127.0.0.1";

/// A word as the shell takes it whatever is in it.
pub fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_word_comes_through_the_shell_unchanged() {
        for word in ["plain", "", "a b;c", "it's $HOME `x` \"y\" \\", "two\nlines"] {
            let out = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {}", quoted(word))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(out.stdout).unwrap(), word);
        }
    }
}
