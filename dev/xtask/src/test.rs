//! `cargo xtask test`: every test, each on real parts.

use anyhow::Result;
use xshell::cmd;

use crate::{project::Project, steps::step};

pub fn run(project: &Project) -> Result<()> {
    step("Rust tests", || {
        Ok(cmd!(project.sh, "cargo test --workspace").run()?)
    })
}
