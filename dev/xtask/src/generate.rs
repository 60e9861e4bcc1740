//! `cargo xtask generate`: the files that are made from the code, made again or compared.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};
use xshell::cmd;

use crate::{
    platform::{Instance, Platform},
    project::Project,
    steps::step,
};

/// Makes them again; with `check` fails instead when one differs.
///
/// # Errors
/// When something cannot be made, or differs.
pub fn run(project: &Project, check: bool) -> Result<()> {
    let sh = &project.sh;
    let flag: &[&str] = if check { &["--", "--check"] } else { &[] };
    step("the definition of the PopularityReport resource", || {
        Ok(cmd!(sh, "cargo run --quiet --package crds --bin crdgen {flag...}").run()?)
    })?;
    step("the descriptions of the queries", || queries(project, check))
}

/// sqlx's macros describe each query when they compile against a database; see `crates/store/README.md`.
fn queries(project: &Project, check: bool) -> Result<()> {
    let sh = &project.sh;
    let fresh = project.target.join("queries");
    if fresh.exists() {
        fs::remove_dir_all(&fresh)?;
    }
    fs::create_dir_all(&fresh)?;
    let mut migrations: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(project.root.join("migrations"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "sql") {
            migrations.push(path);
        }
    }
    migrations.sort();
    Platform::open(project, Instance::Test)?.with_scratch_database(|psql, url| {
        for file in [project.root.join("dev/sample-data/schema.sql")]
            .iter()
            .chain(&migrations)
        {
            let quiet = psql()
                .env("PGOPTIONS", "--client-min-messages=warning")
                .args(["--quiet", "--single-transaction"]);
            quiet.arg("--file").arg(file).quiet().run()?;
        }
        // in a folder of its own, where the crate can be forgotten: cargo does not see the variables change,
        // and the ordinary builds keep what they have
        let target = project.target.join("generate");
        cmd!(sh, "cargo clean --quiet --package store --target-dir {target}")
            .quiet()
            .run()?;
        Ok(cmd!(
            sh,
            "cargo check --quiet --package store --lib --target-dir {target}"
        )
        .env("SQLX_OFFLINE", "false")
        .env("SQLX_OFFLINE_DIR", &fresh)
        .env("DATABASE_URL", url)
        .run()?)
    })?;
    let committed = project.root.join("crates/store/.sqlx");
    let (new, old) = (contents(&fresh)?, contents(&committed)?);
    if new == old {
        return Ok(());
    }
    if check {
        let names = new
            .keys()
            .chain(old.keys())
            .filter(|name| new.get(*name) != old.get(*name));
        let names: std::collections::BTreeSet<_> = names.map(String::as_str).collect();
        bail!(
            "crates/store/.sqlx is out of date: run `cargo xtask generate`. Differing: {}",
            names.into_iter().collect::<Vec<_>>().join(", ")
        );
    }
    fs::remove_dir_all(&committed)?;
    fs::create_dir_all(&committed)?;
    for (name, text) in new {
        fs::write(committed.join(name), text)?;
    }
    Ok(())
}

fn contents(folder: &Path) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        files.insert(
            entry.file_name().to_string_lossy().into_owned(),
            fs::read_to_string(entry.path())?,
        );
    }
    Ok(files)
}
