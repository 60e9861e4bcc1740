//! buildah with a store of its own, and the builder image that is made where none can be pulled.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use xshell::{Cmd, cmd};

use crate::{project::Project, steps::step, tools};

/// What the Containerfile expects of a builder besides cargo: Debian's compilers, and the files that it copies.
const PACKAGES: &str = "gcc,libc6-dev,gcc-aarch64-linux-gnu,libc6-dev-arm64-cross,ca-certificates,tzdata";

/// The certificates that this machine trusts: something may stand between it and the registry of crates.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

pub struct Buildah<'p> {
    project: &'p Project,
    /// The store of images and layers.
    store: PathBuf,
}

impl<'p> Buildah<'p> {
    /// # Errors
    /// When buildah cannot be installed, or there is no place for its store.
    pub fn new(project: &'p Project) -> Result<Self> {
        tools::need_program(project, "buildah", "buildah")?;
        let store = project.cache.join("buildah");
        fs::create_dir_all(&store)?;
        Ok(Self { project, store })
    }

    /// Lets go of the folder that the store keeps mounted, so that it can be removed like any other.
    ///
    /// # Errors
    /// When it stays mounted.
    pub fn close(&self) -> Result<()> {
        let folder = self.store.join("storage/overlay");
        let mounted = cmd!(self.project.sh, "mountpoint --quiet {folder}");
        if mounted.quiet().run().is_ok() {
            cmd!(self.project.sh, "umount --recursive {folder}")
                .quiet()
                .run()?;
        }
        Ok(())
    }

    /// The command, on that store.
    pub fn command(&self) -> Cmd<'p> {
        let store = &self.store;
        cmd!(
            self.project.sh,
            "buildah --root {store}/storage --runroot {store}/run"
        )
    }

    /// A folder in which builds keep what they download and compile; `name` tells them apart.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn cache(&self, name: &str) -> Result<PathBuf> {
        let cache = self.store.join(name);
        fs::create_dir_all(&cache)?;
        Ok(cache)
    }

    /// `buildah build` without a container engine, with its caches in `cache`.
    ///
    /// # Errors
    /// When cargo's configuration for it cannot be written.
    pub fn build(&self, cache: &Path) -> Result<Cmd<'p>> {
        let mut build =
            self.command()
                .env("TMPDIR", cache)
                .args(["build", "--isolation", "chroot", "--layers"]);
        if Path::new(CERTIFICATES).exists() {
            let config = self.store.join("cargo.toml");
            fs::write(&config, "[http]\ncainfo = \"/machine-certificates.crt\"\n")?;
            build = build
                .args([
                    "--volume",
                    &format!("{CERTIFICATES}:/machine-certificates.crt:ro"),
                ])
                .args([
                    "--volume",
                    &format!("{}:/usr/local/cargo/config.toml:ro", config.display()),
                ]);
        }
        Ok(build)
    }

    /// A builder image of Debian 12's packages and this machine's Rust toolchain; made once for each toolchain.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn builder(&self) -> Result<String> {
        let sh = &self.project.sh;
        let version = cmd!(sh, "rustc --version --verbose").quiet().read()?;
        let release = version
            .lines()
            .find_map(|line| line.strip_prefix("release: "))
            .context("rustc does not say its version")?;
        let name = format!("localhost/popularity-reports/builder:{release}-bookworm");
        let exists = self.command().args(["inspect", "--type", "image", &name]);
        if exists.quiet().ignore_stdout().ignore_stderr().run().is_ok() {
            return Ok(name);
        }
        step("make a builder image (once to a toolchain)", || {
            tools::need_program(self.project, "mmdebstrap", "mmdebstrap")?;
            let container = self.command().args(["from", "scratch"]).read()?;
            let made = self.fill(&container, &name);
            if made.is_err() {
                self.command().args(["rm", &container]).ignore_stdout().run()?;
            }
            made
        })?;
        Ok(name)
    }

    fn fill(&self, container: &str, name: &str) -> Result<()> {
        let sh = &self.project.sh;
        let root = PathBuf::from(self.command().args(["mount", container]).read()?);
        let packages = PACKAGES;
        cmd!(
            sh,
            "mmdebstrap --quiet --variant=minbase --include={packages} --format=directory bookworm {root}"
        )
        .run()?;
        let sysroot = cmd!(sh, "rustc --print sysroot").quiet().read()?;
        let usr = root.join("usr/local");
        // the rest of a toolchain is documentation
        for part in ["bin", "lib", "libexec"] {
            cmd!(sh, "cp --archive {sysroot}/{part} {usr}").run()?;
        }
        fs::create_dir_all(usr.join("cargo"))?;
        let path = "PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        self.command()
            .args([
                "config",
                "--env",
                "CARGO_HOME=/usr/local/cargo",
                "--env",
                path,
                container,
            ])
            .run()?;
        self.command().args(["umount", container]).ignore_stdout().run()?;
        Ok(self
            .command()
            .args([
                "commit",
                "--quiet",
                "--rm",
                "--disable-compression",
                container,
                name,
            ])
            .ignore_stdout()
            .run()?)
    }
}
