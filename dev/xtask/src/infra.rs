//! `cargo xtask infra`: holds the Bicep files against what the chart and the programs need of them.

use anyhow::Result;
use xshell::cmd;

use crate::{hash::sha256_hex, project::Project, steps::step, tools};

const REQUIREMENTS: &str = "infra/tests/requirements.txt";

/// # Errors
/// When a check fails, or the parser cannot be installed.
pub fn check(project: &Project) -> Result<()> {
    tools::need_python(project)?;
    let sh = &project.sh;
    let wanted = sha256_hex(&std::fs::read(project.root.join(REQUIREMENTS))?);
    let environment = project.cache.join(format!("infra-{}", &wanted[..12]));
    // written last: an environment without it was interrupted
    let complete = environment.join("complete");
    if !complete.exists() {
        step("install the parser of Bicep", || {
            cmd!(sh, "python3 -m venv --clear {environment}").run()?;
            cmd!(sh, "{environment}/bin/pip install --quiet --disable-pip-version-check --requirement {REQUIREMENTS}").run()?;
            Ok(std::fs::write(&complete, "")?)
        })?;
    }
    step("check the Bicep files", || {
        Ok(cmd!(
            sh,
            "{environment}/bin/python -B -m unittest discover --start-directory infra/tests"
        )
        .run()?)
    })
}
