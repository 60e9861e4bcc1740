//! Where the things of this checkout and of this machine are.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use xshell::Shell;

/// One checkout of the repository, and a shell that stands in its root folder.
pub struct Project {
    pub sh: Shell,
    /// The root folder of the checkout.
    pub root: PathBuf,
    /// Where cargo builds.
    pub target: PathBuf,
    /// What all checkouts share, and what is downloaded or built again when it is lost.
    pub cache: PathBuf,
    /// What all checkouts share, and what must not be lost while a platform is up.
    pub state: PathBuf,
}

impl Project {
    /// The checkout that this program was built from.
    ///
    /// # Errors
    /// When it was not started by cargo, or there is no home folder.
    pub fn find() -> Result<Self> {
        let manifest = env::var_os("CARGO_MANIFEST_DIR").context("start this by `cargo xtask`")?;
        let root = Path::new(&manifest)
            .ancestors()
            .nth(2)
            .context("no root folder above dev/xtask")?
            .to_owned();
        let target =
            env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir));
        let sh = Shell::new()?;
        sh.change_dir(&root);
        // The queries are checked against the committed descriptions, whatever DATABASE_URL is.
        sh.set_var("SQLX_OFFLINE", "true");
        Ok(Self {
            sh,
            root,
            target,
            cache: base_dir("XDG_CACHE_HOME", ".cache")?.join("popularity-reports"),
            state: base_dir("XDG_STATE_HOME", ".local/state")?.join("popularity-reports"),
        })
    }

    /// A program of the workspace, as `cargo build` leaves it.
    pub fn built(&self, profile: &str, program: &str) -> PathBuf {
        let folder = if profile == "dev" { "debug" } else { profile };
        self.target.join(folder).join(program)
    }

    /// `path` as a reader in the root folder would write it.
    pub fn shown<'p>(&self, path: &'p Path) -> std::path::Display<'p> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}

/// A folder of the XDG base directory specification: the variable, or its default below the home folder.
pub fn base_dir(variable: &str, default: &str) -> Result<PathBuf> {
    match env::var_os(variable) {
        Some(dir) if !dir.is_empty() => Ok(dir.into()),
        _ => Ok(env::home_dir().context("HOME is not set")?.join(default)),
    }
}
