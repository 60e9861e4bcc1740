//! The product, installed on the cluster by its chart.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use xshell::{Cmd, cmd};

use super::{
    Base, LOOPBACK, NAMESPACE, azurite,
    cluster::Cluster,
    postgres::{self, Login},
    servicebus,
};
use crate::{hash::sha256_hex, images, project::Project, steps::wait_for, tools};

/// The release, and how the names of its objects begin.
const NAME: &str = "popularity-reports";

const CHART: &str = "charts/popularity-reports";

/// The Deployments, by the word that people know them by.
pub const DEPLOYMENTS: [&str; 2] = ["operator", "api"];

/// The annotation of the namespace that tells what was installed last.
const INSTALLED: &str = "popularity-reports/installed";

/// The node's port of the API; `kind-config.yaml` publishes it.
const NODE_PORT: u16 = 30_080;

/// How long Pods have to get ready.
const START: Duration = Duration::from_secs(120);

/// The product on one platform's cluster.
pub struct Release<'a, 'p> {
    pub base: &'a Base<'p>,
    pub cluster: &'a Cluster<'p>,
}

impl<'p> Release<'_, 'p> {
    /// Installs or upgrades it, unless what is installed is the same already, and waits until it is ready.
    ///
    /// # Errors
    /// When helm or the cluster refuses, or a Pod does not get ready.
    pub fn up(&self, images: &[images::Image]) -> Result<()> {
        let secrets = self.secrets()?.to_string();
        let values = self.values(images, &secrets)?;
        let wanted = sha256_hex(format!("{values} {}", chart_hash(self.base.project)?).as_bytes());
        if self.installed()?.as_deref() == Some(&*wanted) {
            eprintln!("   what is installed has not changed");
        } else {
            let apply = self.cluster.kubectl()?;
            // by standard input: a command line can be read by everybody on the machine
            let apply = apply.args(["apply", "--server-side", "--filename", "-"]);
            apply.stdin(secrets).run().context("namespace and Secrets")?;
            let file = self.base.dir.join("values.json");
            fs::write(&file, serde_json::to_string_pretty(&values)?)?;
            let file = self.base.project.shown(&file).to_string();
            self.helm()?
                .args(["upgrade", "--install", NAME, CHART])
                .args(["--namespace", NAMESPACE, "--values", &file])
                // the definition may be there from the tests, or from a release that is gone
                .args(["--take-ownership", "--timeout", "3m"])
                .ignore_stdout()
                .run()?;
        }
        for part in DEPLOYMENTS {
            self.kubectl()?
                .args(["rollout", "status", "--timeout=120s", &deployment(part)])
                .ignore_stdout()
                .run()
                .with_context(|| {
                    format!("the {part} does not get ready; cargo xtask logs {part} tells more")
                })?;
        }
        let installed = format!("{INSTALLED}={wanted}");
        self.kubectl()?
            .args(["annotate", "--overwrite", "namespace", NAMESPACE, &installed])
            .quiet()
            .ignore_stdout()
            .run()?;
        let url = format!("{}/_health/ready", self.api_url()?);
        // kube-proxy lets new Pods in about once a second
        wait_for("the API's Service", START, || {
            let ask = cmd!(
                self.base.project.sh,
                "curl --silent --fail --max-time 5 --output /dev/null {url}"
            );
            Ok(ask.quiet().ignore_stderr().run().is_ok())
        })
    }

    /// Removes it; what it has written stays, the reports' resources too.
    ///
    /// # Errors
    /// When helm cannot.
    pub fn down(&self) -> Result<()> {
        if !self.cluster.is_up() || self.installed()?.is_none() {
            return Ok(());
        }
        let none = format!("{INSTALLED}-");
        self.kubectl()?
            .args(["annotate", "namespace", NAMESPACE, &none])
            .quiet()
            .ignore_stdout()
            .run()?;
        Ok(self
            .helm()?
            .args(["uninstall", NAME, "--namespace", NAMESPACE])
            .args(["--ignore-not-found", "--wait", "--timeout", "1m"])
            .ignore_stdout()
            .run()?)
    }

    /// How many of a Deployment's Pods are ready, and how many there should be.
    ///
    /// # Errors
    /// When the cluster does not tell.
    pub fn ready(&self, part: &str) -> Result<(u32, u32)> {
        let counts = "{.status.readyReplicas} {.spec.replicas}";
        let told = self
            .kubectl()?
            .args(["get", &deployment(part), "--ignore-not-found"])
            .args(["--output", &format!("jsonpath={counts}")])
            .quiet()
            .read()?;
        let (ready, wanted) = told.split_once(' ').unwrap_or_default();
        Ok((ready.parse().unwrap_or(0), wanted.parse().unwrap_or(0)))
    }

    /// Follows the log of a Deployment's Pods.
    ///
    /// # Errors
    /// When there are none.
    pub fn logs(&self, part: &str) -> Result<()> {
        let label = format!("app.kubernetes.io/component={part}");
        Ok(self
            .kubectl()?
            .args(["logs", "--follow", "--prefix", "--tail=50", "--selector", &label])
            .run()?)
    }

    /// Where the API answers.
    ///
    /// # Errors
    /// When it is not installed.
    pub fn api_url(&self) -> Result<String> {
        if let Some(published) = self.cluster.published_api() {
            return Ok(published.to_owned());
        }
        let address = self
            .kubectl()?
            .args(["get", "service", &format!("{NAME}-api")])
            .args(["--output", "jsonpath={.spec.clusterIP}"])
            .quiet()
            .read()
            .context("the API is not installed: cargo xtask up")?;
        Ok(format!("http://{address}"))
    }

    fn values(&self, images: &[images::Image], secrets: &str) -> Result<Value> {
        let name = |program| json!({"name": secret(program)});
        // Pods are replaced when their program or their Secret has changed, which neither tag nor name tells
        let mut annotations = json!({"popularity-reports/secrets": sha256_hex(secrets.as_bytes())});
        for image in images {
            let key = format!("popularity-reports/{}", image.name.replace([':', '/'], "-"));
            annotations[key] = sha256_hex(&fs::read(&image.archive)?).into();
        }
        let ports = &self.base.settings.ports;
        let service = match self.cluster.published_api() {
            Some(_) => json!({"type": "NodePort", "nodePort": NODE_PORT}),
            None => json!({}),
        };
        Ok(json!({
            "images": {"tag": images::DEV},
            "secrets": {
                "api": name("api"),
                "operator": name("operator"),
                "exporter": name("exporter"),
                "migrations": name("migrations"),
            },
            // Pods reach Azurite at another address than people do
            "blob": {"publicEndpoint": azurite::endpoint(self.base, LOOPBACK)},
            "api": {"service": service, "podAnnotations": annotations},
            "operator": {
                "podAnnotations": annotations,
                // nobody else sets Azurite up
                "extraEnv": [{"name": "BLOB_CREATE_CONTAINER", "value": "true"}],
            },
            "networkPolicy": {
                "database": {"ports": [ports.postgres]},
                "serviceBus": {"ports": [ports.servicebus]},
                "blob": {"ports": [ports.blob]},
            },
        }))
    }

    /// The namespace, and in it what each program may know, as one list.
    fn secrets(&self) -> Result<Value> {
        let base = self.base;
        let host = &self.cluster.host_address()?;
        let database = |login| postgres::url(base, login, host);
        let storage = azurite::connection_string(base, host);
        let secret = |program, data| {
            json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": secret(program), "namespace": NAMESPACE},
                "stringData": data,
            })
        };
        Ok(json!({"apiVersion": "v1", "kind": "List", "items": [
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
            },
            secret("api", json!({
                "REPORTS_DATABASE_URL": database(Login::Api),
                "AZURE_STORAGE_CONNECTION_STRING": storage,
                "JWT_KEY": base.settings.secrets.jwt_key,
            })),
            secret("operator", json!({
                "REPORTS_DATABASE_URL": database(Login::Operator),
                "SERVICEBUS_CONNECTION_STRING": servicebus::connection_string(base, host),
                "AZURE_STORAGE_CONNECTION_STRING": storage,
            })),
            secret("exporter", json!({
                "REPORTS_DATABASE_URL": database(Login::Exporter),
                "CATALOG_DATABASE_URL": database(Login::Exporter),
                "AZURE_STORAGE_CONNECTION_STRING": storage,
            })),
            secret("migrations", json!({"REPORTS_DATABASE_URL": database(Login::Migrations)})),
        ]}))
    }

    /// What was installed last, if it is there.
    fn installed(&self) -> Result<Option<String>> {
        let annotation = INSTALLED.replace('.', "\\.");
        let told = self
            .kubectl()?
            .args(["get", "namespace", NAMESPACE, "--ignore-not-found"])
            .args([
                "--output",
                &format!("jsonpath={{.metadata.annotations['{annotation}']}}"),
            ])
            .quiet()
            .read()?;
        Ok(Some(told).filter(|told| !told.is_empty()))
    }

    fn kubectl(&self) -> Result<Cmd<'p>> {
        Ok(self.cluster.kubectl()?.args(["--namespace", NAMESPACE]))
    }

    fn helm(&self) -> Result<Cmd<'p>> {
        let project = self.base.project;
        Ok(project
            .sh
            .cmd(tools::need_helm(project)?)
            .env("KUBECONFIG", self.cluster.kubeconfig()?))
    }
}

fn deployment(part: &str) -> String {
    format!("deployment/{NAME}-{part}")
}

fn secret(program: &str) -> String {
    format!("{NAME}-{program}")
}

/// A hash of all that the chart is made of.
fn chart_hash(project: &Project) -> Result<String> {
    fn files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                files(&path, found)?;
            } else {
                found.push(path);
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    files(&project.root.join(CHART), &mut found)?;
    found.sort_unstable();
    let mut text = String::new();
    for file in found {
        let hash = sha256_hex(&fs::read(&file)?);
        text.push_str(&format!("{} {hash}\n", file.display()));
    }
    Ok(sha256_hex(text.as_bytes()))
}
