//! `cargo xtask chart`: what can be said of the chart without installing it. The tests in `tests/chart/` say more.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;
use xshell::cmd;

use crate::{platform::cluster::Cluster, project::Project, steps::step, tools::need_helm};

/// Its folder.
pub const CHART: &str = "charts/popularity-reports";

/// What `helm template` renders for: the version of the bundled cluster. One that `go install` built believes
/// in 1.20 unless told otherwise.
pub const KUBERNETES: &str = "1.34.0";

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
            // a Pod of `helm test` is refused while its service account is not there
            Ok(cmd!(
                sh,
                "{helm} template reports {CHART} --namespace default --kube-version {KUBERNETES} --no-hooks --values {file}"
            )
            .ignore_stderr()
            .read()?)
        })?;
        fs::write(folder.join(format!("{values}.yaml")), &rendered)?;
        if up {
            step(&format!("have the API server check it with {values}"), || {
                let arguments = [
                    "apply",
                    "--server-side",
                    "--force-conflicts",
                    "--dry-run=server",
                    "--validate=strict",
                    "--filename=-",
                ];
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

/// Definitions of what the chart can make and Kubernetes does not know: modules of Go that bring them, and where
/// in there they are.
const DEFINITIONS: &[(&str, &[&str])] = &[
    (
        "sigs.k8s.io/gateway-api@v1.4.0",
        &["config/crd/standard/gateway.networking.k8s.io_httproutes.yaml"],
    ),
    (
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        &[
            "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
            "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
        ],
    ),
];

/// The published definitions of HTTPRoute, ServiceMonitor and PrometheusRule, by which the tests have the API server check
/// what the chart makes of these kinds.
///
/// # Errors
/// When a module cannot be fetched.
pub fn foreign_definitions(project: &Project) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for (module, paths) in DEFINITIONS {
        let answer = cmd!(project.sh, "go mod download -json {module}")
            .quiet()
            .read()
            .with_context(|| format!("cannot fetch {module}"))?;
        let answer: Value = serde_json::from_str(&answer)?;
        let folder = answer["Dir"]
            .as_str()
            .with_context(|| format!("go does not say where {module} is"))?;
        files.extend(paths.iter().map(|path| PathBuf::from(folder).join(path)));
    }
    Ok(files)
}
