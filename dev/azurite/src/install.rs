//! Where Azurite's program is: named, found, or installed once by npm beside the tests.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::on_path;

/// The variable with the folder that holds `azurite-blob`.
const FOLDER_VARIABLE: &str = "AZURITE_BIN";
const PROGRAM: &str = "azurite-blob";
/// What is installed, to the byte; `cargo xtask up` installs from the same two files.
const PACKAGE: &str = include_str!("../package.json");
const PACKAGE_LOCK: &str = include_str!("../package-lock.json");

/// The JavaScript file behind `azurite-blob`.
pub(crate) fn main_module() -> anyhow::Result<PathBuf> {
    let program = match std::env::var_os(FOLDER_VARIABLE) {
        Some(folder) => PathBuf::from(folder).join(PROGRAM),
        None => match on_path(PROGRAM) {
            Some(program) => program,
            None => installed(&target_folder()?)?,
        },
    };
    program
        .canonicalize()
        .with_context(|| format!("there is no Azurite at {}", program.display()))
}

/// The folder `tmp` of cargo's target directory, in which the running test lies.
fn target_folder() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("failed to find the running program")?;
    // target/debug/deps/the-test
    let target = program
        .ancestors()
        .nth(3)
        .context("the running program lies in no target folder")?;
    Ok(target.join("tmp"))
}

/// Installs it unless it is there. Tests are many processes: one installs, the others wait for the lock.
fn installed(folder: &Path) -> anyhow::Result<PathBuf> {
    let prefix = folder.join("azurite");
    let program = prefix.join("node_modules/.bin").join(PROGRAM);
    fs::create_dir_all(&prefix).with_context(|| format!("failed to make {}", prefix.display()))?;
    let lock = File::create(prefix.join("lock")).context("failed to make the lock of Azurite's folder")?;
    lock.lock()
        .context("failed to wait for another installation of Azurite")?;
    let locked = prefix.join("package-lock.json");
    if program.is_file() && fs::read_to_string(&locked).is_ok_and(|text| text == PACKAGE_LOCK) {
        return Ok(program);
    }
    fs::write(prefix.join("package.json"), PACKAGE).context("failed to write Azurite's package.json")?;
    fs::write(&locked, PACKAGE_LOCK).context("failed to write Azurite's package-lock.json")?;
    let output = Command::new("npm")
        .args(["ci", "--omit", "optional", "--no-fund", "--no-audit", "--prefix"])
        .arg(&prefix)
        .output()
        .context("failed to run npm, which installs Azurite")?;
    ensure!(
        output.status.success(),
        "npm failed to install Azurite:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(program)
}
