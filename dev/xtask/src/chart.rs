//! `cargo xtask chart`: what can be said of the chart without installing it. The tests in `tests/chart/` say more.

use std::fs;

use anyhow::Result;
use xshell::cmd;

use crate::{platform::cluster::Cluster, project::Project, steps::step, tools::need_helm};

/// Its folder.
pub const CHART: &str = "charts/popularity-reports";

/// What `helm template` renders for: the version of the bundled cluster. One that `go install` built believes
/// in 1.20 unless told otherwise.
const KUBERNETES: &str = "1.34.0";

/// The values files, each of which is enough to install with.
const VALUES: &[&str] = &["values-kind", "values-aks"];

/// Lints, packages and renders the chart with each values file, what is rendered going to `target/chart/`, and has
/// the API server check it where a cluster is up.
///
/// # Errors
/// When a check fails.
pub fn check(project: &Project) -> Result<()> {
    let sh = &project.sh;
    let helm = need_helm(project)?;
    let folder = project.target.join("chart");
    fs::create_dir_all(&folder)?;
    for values in VALUES {
        let file = format!("{CHART}/{values}.yaml");
        step(&format!("lint the chart with {values}"), || {
            Ok(cmd!(sh, "{helm} lint --strict {CHART} --values {file}").run()?)
        })?;
    }
    step("package the chart", || {
        Ok(cmd!(sh, "{helm} package {CHART} --destination {folder}").run()?)
    })?;
    let cluster = Cluster::new(project);
    let up = cluster.is_up();
    for values in VALUES {
        let file = format!("{CHART}/{values}.yaml");
        let rendered = step(&format!("render the chart with {values}"), || {
            Ok(cmd!(
                sh,
                "{helm} template reports {CHART} --namespace default --kube-version {KUBERNETES} --values {file}"
            )
            .ignore_stderr()
            .read()?)
        })?;
        fs::write(folder.join(format!("{values}.yaml")), &rendered)?;
        if up {
            step(&format!("have the API server check it with {values}"), || {
                let arguments = ["apply", "--dry-run=server", "--validate=strict", "--filename=-"];
                Ok(cluster
                    .kubectl()?
                    .args(arguments)
                    .stdin(rendered)
                    .ignore_stdout()
                    .run()?)
            })?;
        }
    }
    if !up {
        eprintln!("no cluster is up, so the API server was not asked: cargo xtask up");
    }
    Ok(())
}
