//! Runs the suites that drive the emulator by Microsoft's own clients, each in its own language. They need the
//! feature `sdk`, and Python, Go and Node.js on the machine:
//!
//! `cargo test --package servicebus-emulator --features sdk --test sdks`
//!
//! What the package managers fetch stays under `SDK_TESTS_CACHE`, or below the target directory when it is unset,
//! and is fetched again only when the pinned versions change.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

const EMULATOR: &str = env!("CARGO_BIN_EXE_servicebus-emulator");

#[test]
fn the_python_sdk_works_unchanged() -> anyhow::Result<()> {
    let suite = suite("python");
    let venv = cache("python")?;
    let requirements = suite.join("requirements.txt");
    once_per_content(&requirements, &venv, || {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
        run(Command::new(venv.join("bin/pip"))
            .args([
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--requirement",
            ])
            .arg(&requirements))
    })?;
    run(Command::new(venv.join("bin/python"))
        // The tests mostly wait, each on a queue of its own.
        .args([
            "-m",
            "pytest",
            "--quiet",
            "-p",
            "no:cacheprovider",
            "--numprocesses",
            "8",
        ])
        .current_dir(suite)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("EMULATOR_BINARY", EMULATOR))
}

#[test]
fn the_go_sdk_works_unchanged() -> anyhow::Result<()> {
    run(Command::new("go")
        .args(["test", "-count=1", "./..."])
        .current_dir(suite("go"))
        .env("EMULATOR_BINARY", EMULATOR))
}

#[test]
fn the_javascript_sdk_works_unchanged() -> anyhow::Result<()> {
    let suite = suite("javascript");
    // npm installs beside package.json, and nothing that is fetched belongs into the source tree.
    let copy = cache("javascript")?;
    fs::create_dir_all(&copy)?;
    for file in ["package.json", "package-lock.json", "servicebus.test.js"] {
        fs::copy(suite.join(file), copy.join(file)).with_context(|| format!("failed to copy {file}"))?;
    }
    once_per_content(&suite.join("package-lock.json"), &copy, || {
        run(Command::new("npm")
            .args(["ci", "--no-audit", "--no-fund", "--loglevel=error"])
            .current_dir(&copy))
    })?;
    run(Command::new("node")
        .args(["--test", "--test-reporter=spec", "servicebus.test.js"])
        .current_dir(&copy)
        .env("EMULATOR_BINARY", EMULATOR))
}

fn suite(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("sdk-tests")
        .join(language)
}

fn cache(language: &str) -> anyhow::Result<PathBuf> {
    let root = std::env::var_os("SDK_TESTS_CACHE")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let root = root.join("sdk-tests");
    fs::create_dir_all(&root).with_context(|| format!("failed to create {}", root.display()))?;
    Ok(root.join(language))
}

/// Runs `install` unless it has run before for the same content of `pins`.
fn once_per_content(
    pins: &Path,
    into: &Path,
    install: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let stamp = into.with_extension("installed");
    let wanted = fs::read(pins)?;
    if fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        eprintln!("{} is as {} wants it", into.display(), pins.display());
        return Ok(());
    }
    install()?;
    fs::write(stamp, wanted)?;
    Ok(())
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    eprintln!("$ {command:?}");
    let program = command.get_program().to_owned();
    let status = command
        .status()
        .with_context(|| format!("failed to start {program:?}; is it installed?"))?;
    ensure!(
        status.success(),
        "{program:?} ended with {status}; its output is above"
    );
    Ok(())
}
