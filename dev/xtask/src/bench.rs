//! `cargo xtask bench`: figures as ratios against a peer in the same run.

use anyhow::Result;
use xshell::cmd;

use crate::{
    platform::{Instance, Platform, Sample},
    project::Project,
    steps::step,
};

/// Starts the platform and measures the way of a report's rows against PostgreSQL's own COPY.
///
/// # Errors
/// When the platform does not start, or the two do not read the same rows.
pub fn run(project: &Project, sample: Sample) -> Result<()> {
    let platform = Platform::open(project, Instance::Dev)?;
    platform.up(sample)?;
    step("rows streamed and rendered, against COPY (docs/adr/0005)", || {
        let example = [
            "--package",
            "exporter",
            "--features",
            "bench",
            "--example",
            "rows_against_copy",
        ];
        let run = cmd!(project.sh, "cargo run --quiet --release {example...}");
        Ok(run.envs(platform.env()?).run()?)
    })
}
