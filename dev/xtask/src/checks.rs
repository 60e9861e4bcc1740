//! The checks that need no platform.

use anyhow::Result;
use xshell::cmd;

use crate::{project::Project, steps::step, tools};

pub fn fmt(project: &Project, check: bool) -> Result<()> {
    let check = check.then_some("--check");
    step("format", || {
        Ok(cmd!(project.sh, "cargo fmt --all {check...}").run()?)
    })
}

pub fn lint(project: &Project) -> Result<()> {
    step("clippy", || {
        Ok(cmd!(
            project.sh,
            "cargo clippy --workspace --all-targets --all-features -- -D warnings"
        )
        .run()?)
    })?;
    let actionlint = tools::need_actionlint(project)?;
    step("GitHub's workflows", || {
        Ok(cmd!(project.sh, "{actionlint} -no-color").run()?)
    })
}

/// Advisories are left out: their database is a repository that a machine without the Internet cannot fetch.
pub fn deny(project: &Project) -> Result<()> {
    tools::need_cargo_tool(project, "cargo-deny", "0.20.2")?;
    step("licences, sources, bans", || {
        Ok(cmd!(
            project.sh,
            "cargo deny --all-features --workspace check bans licenses sources"
        )
        .run()?)
    })
}
