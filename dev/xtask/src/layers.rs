//! Which crate may depend on which: the arrows of `docs/ARCHITECTURE.md`, kept true.
//!
//! The direct dependencies come from `cargo metadata`. What a crate may not have even at second hand comes
//! from `cargo tree`, which (other than the metadata) resolves the features of that crate alone.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};
use serde::Deserialize;
use xshell::cmd;

use crate::{project::Project, steps::step};

/// A member of the workspace and the members that it may depend on directly, tests' dependencies aside.
/// A member that is not named here (the tests, what is in `dev/`) may depend on all.
const MAY_USE: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("checks", &[]),
    ("store", &["checks", "domain"]),
    ("crds", &["domain"]),
    ("backoff", &[]),
    ("servicebus", &["backoff", "checks"]),
    ("blob", &["backoff", "checks"]),
    ("identity", &["backoff"]),
    ("runtime", &["backoff", "checks", "identity"]),
    ("kubernetes", &["checks", "crds", "runtime"]),
    (
        "api",
        &[
            "blob",
            "checks",
            "crds",
            "domain",
            "identity",
            "kubernetes",
            "runtime",
            "store",
        ],
    ),
    (
        "operator",
        &[
            "blob",
            "checks",
            "crds",
            "domain",
            "identity",
            "kubernetes",
            "runtime",
            "servicebus",
            "store",
        ],
    ),
    ("exporter", &["blob", "domain", "identity", "runtime", "store"]),
    ("xtask", &[]),
];

/// What a member must not have in its tree at all; a `*` at the end stands for any rest of a name.
const MUST_NOT_HAVE: &[(&str, &[&str])] = &[
    (
        "domain",
        &["kube*", "k8s-openapi", "sqlx*", "axum*", "azure_*", "tokio*"],
    ),
    ("api", &["servicebus", "fe2o3-amqp*"]),
    (
        "exporter",
        &[
            "kube*",
            "k8s-openapi",
            "crds",
            "servicebus",
            "fe2o3-amqp*",
            "axum*",
        ],
    ),
    ("servicebus", &["kube*", "sqlx*", "axum*"]),
    ("blob", &["kube*", "sqlx*", "axum*"]),
    ("identity", &["kube*", "sqlx*", "axum*"]),
    ("store", &["kube*", "axum*", "azure_*", "fe2o3-amqp*"]),
];

/// What a source file of a member other than `store` must not have: only `store` has SQL. (The types of
/// sqlx's pools and errors go through all of them.)
const SQL: &[&str] = &[
    "sqlx::query",
    "sqlx::raw_sql",
    "query!(",
    "query_as!(",
    "query_scalar!(",
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

/// Checks the rules on the real tree.
///
/// # Errors
/// With every rule that is broken.
pub fn check(project: &Project) -> Result<()> {
    step("layers", || {
        let metadata = cmd!(project.sh, "cargo metadata --format-version 1 --no-deps")
            .quiet()
            .read()?;
        let metadata = serde_json::from_str(&metadata)?;
        let mut broken = direct(&metadata);
        for package in with_rules(&metadata).filter(|package| package.name != "store") {
            let folder = package.manifest_path.with_file_name("src");
            broken.extend(
                statements(&folder)?
                    .iter()
                    .map(|file| format!("SQL belongs into crates/store, not {file}")),
            );
        }
        for &(member, banned) in MUST_NOT_HAVE {
            let tree = cmd!(project.sh, "cargo tree -p {member} -e normal --prefix none")
                .quiet()
                .read()?;
            broken.extend(indirect(member, banned, &tree));
        }
        if broken.is_empty() {
            return Ok(());
        }
        bail!("{}", broken.join("\n"))
    })
}

fn with_rules(metadata: &Metadata) -> impl Iterator<Item = &Package> {
    metadata
        .packages
        .iter()
        .filter(|package| MAY_USE.iter().any(|(name, _)| *name == package.name))
}

/// The source files below the folder that hold SQL. This file names what it looks for.
fn statements(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(statements(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with(file!()) {
            let text = fs::read_to_string(&path)?;
            if SQL.iter().any(|sql| text.contains(sql)) {
                found.push(path.display().to_string());
            }
        }
    }
    Ok(found)
}

/// The direct dependencies between members that [`MAY_USE`] does not allow.
fn direct(metadata: &Metadata) -> Vec<String> {
    let members: BTreeSet<_> = metadata.packages.iter().map(|p| p.name.as_str()).collect();
    let mut broken = Vec::new();
    for package in &metadata.packages {
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == package.name) else {
            continue;
        };
        for dependency in package
            .dependencies
            .iter()
            .filter(|d| d.kind.as_deref() != Some("dev"))
        {
            let name = dependency.name.as_str();
            if members.contains(name) && !allowed.contains(&name) {
                broken.push(format!("{} must not depend on {name}", package.name));
            }
        }
    }
    broken
}

/// The crates in `member`'s tree, one a line as `name v1.2.3 …`, that are banned there.
fn indirect(member: &str, banned: &[&str], tree: &str) -> BTreeSet<String> {
    let names = tree.lines().filter_map(|line| line.split(' ').next());
    names
        .filter(|name| banned.iter().any(|pattern| matches(pattern, name)))
        .map(|name| {
            format!("{member} must not have {name} in its tree: cargo tree -p {member} -e normal -i {name}")
        })
        .collect()
}

fn matches(pattern: &str, name: &str) -> bool {
    pattern
        .strip_suffix('*')
        .map_or(pattern == name, |start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Package {
        Package {
            name: name.to_owned(),
            manifest_path: PathBuf::new(),
            dependencies: dependencies
                .iter()
                .map(|(name, kind)| Dependency {
                    name: (*name).to_owned(),
                    kind: kind.map(str::to_owned),
                })
                .collect(),
        }
    }

    #[test]
    fn this_workspace_keeps_its_layers() {
        check(&Project::find().unwrap()).unwrap();
    }

    #[test]
    fn an_arrow_against_the_layers_is_named() {
        let metadata = Metadata {
            packages: vec![
                package("domain", &[("store", None), ("serde", None)]),
                package("store", &[("domain", None)]),
            ],
        };
        assert_eq!(direct(&metadata), ["domain must not depend on store"]);
    }

    #[test]
    fn sql_is_found_wherever_it_stands() {
        let folder = std::env::temp_dir().join(format!("xtask-layers-{}", std::process::id()));
        fs::create_dir_all(folder.join("routes")).unwrap();
        fs::write(folder.join("lib.rs"), "use sqlx::PgPool;").unwrap();
        fs::write(folder.join("routes/get.rs"), "sqlx::query(\"SELECT 1\")").unwrap();

        let found = statements(&folder).unwrap();

        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(found, [folder.join("routes/get.rs").display().to_string()]);
    }

    #[test]
    fn tests_may_depend_on_what_the_product_may_not() {
        let metadata = Metadata {
            packages: vec![
                package("servicebus", &[("emulator", Some("dev"))]),
                package("emulator", &[]),
            ],
        };
        assert!(direct(&metadata).is_empty());
    }

    #[test]
    fn a_banned_crate_is_found_at_second_hand_by_name_and_by_pattern() {
        let tree =
            "exporter v0.1.0 (/p)\nkube-client v5.0.0\naxum v0.8.0 (*)\nkubelet v1.0.0\ncrds v0.1.0 (/c)\n";
        let found = indirect("exporter", &["kube-*", "crds"], tree);
        let found: Vec<_> = found.iter().map(|line| line.split(' ').nth(4).unwrap()).collect();
        assert_eq!(found, ["crds", "kube-client"]);
    }
}
