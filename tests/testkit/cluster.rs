//! A namespace of the test's own on the real cluster.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crds::PopularityReport;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Namespace, Pod, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, LogParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::config::Kubeconfig;
use kube::{Api, Client, ResourceExt as _};
use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::platform::Platform;
use crate::proxy::Proxy;
use crate::until;

/// The exporter's environment, as the operator is told to give it to Jobs.
pub const EXPORTER_SECRET: &str = "exporter";
/// Who writes what the tests write.
const FIELD_MANAGER: &str = "popularity-reports-tests";

/// The namespace, an administrator's client, and a forwarder through which the test's own API and operator
/// reach the API server.
pub struct Cluster {
    /// The namespace.
    pub namespace: String,
    /// An administrator's client, not by way of the forwarder.
    pub client: Client,
    /// Between the test's programs and the API server.
    pub proxy: Proxy,
    /// A kubeconfig by way of the forwarder.
    pub kubeconfig_by_proxy: PathBuf,
    kubeconfig: PathBuf,
    kubectl: PathBuf,
}

impl Cluster {
    /// Creates the namespace, with `restricted` Pod Security as a careful administrator would.
    pub async fn create(platform: &Platform, id: &str, test: &str, folder: &Path) -> Self {
        let client = platform.kube_client().await;
        install_definition(&client).await;
        let namespace = format!("e2e-{id}");
        let labels = BTreeMap::from([
            ("popularity-reports/test".to_owned(), label(test)),
            (
                "pod-security.kubernetes.io/enforce".to_owned(),
                "restricted".to_owned(),
            ),
        ]);
        let object = Namespace {
            metadata: ObjectMeta {
                name: Some(namespace.clone()),
                labels: Some(labels),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        Api::<Namespace>::all(client.clone())
            .create(&PostParams::default(), &object)
            .await
            .unwrap_or_else(|error| panic!("cannot create namespace {namespace}: {error}"));
        let (proxy, kubeconfig_by_proxy) = forwarder(platform, folder).await;
        Self {
            namespace,
            client,
            proxy,
            kubeconfig_by_proxy,
            kubeconfig: platform.kubeconfig.clone(),
            kubectl: platform.kubectl.clone(),
        }
    }

    /// Objects of a kind in the namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The report's object, if it is there.
    pub async fn report(&self, name: &str) -> Option<PopularityReport> {
        self.api().get_opt(name).await.expect("the API server answers")
    }

    /// All reports' objects.
    pub async fn reports(&self) -> Vec<PopularityReport> {
        self.list().await
    }

    /// All Jobs.
    pub async fn jobs(&self) -> Vec<Job> {
        self.list().await
    }

    /// All Pods.
    pub async fn pods(&self) -> Vec<Pod> {
        self.list().await
    }

    /// All Events.
    pub async fn events(&self) -> Vec<Event> {
        self.list().await
    }

    async fn list<K>(&self) -> Vec<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let list = self.api::<K>().list(&ListParams::default()).await;
        list.expect("the API server answers").items
    }

    /// Gives the exporter its environment, or another one.
    pub async fn set_exporter_secret(&self, values: BTreeMap<String, String>) {
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(EXPORTER_SECRET.to_owned()),
                ..ObjectMeta::default()
            },
            string_data: Some(values),
            ..Secret::default()
        };
        self.api::<Secret>()
            .patch(
                EXPORTER_SECRET,
                &PatchParams::apply(FIELD_MANAGER).force(),
                &Patch::Apply(&secret),
            )
            .await
            .expect("the exporter's Secret can be written");
    }

    /// Runs kubectl in the namespace, as a person would.
    pub async fn kubectl(&self, arguments: &[&str]) -> Answer {
        self.kubectl_with_input(arguments, "").await
    }

    /// The same with standard input, as for `apply -f -`.
    pub async fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Answer {
        use tokio::io::AsyncWriteExt as _;
        let mut child = Command::new(&self.kubectl)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(["--namespace", &self.namespace])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", self.kubectl.display()));
        let mut stdin = child.stdin.take().expect("standard input is a pipe");
        stdin
            .write_all(input.as_bytes())
            .await
            .expect("kubectl reads its input");
        drop(stdin);
        let output = child.wait_with_output().await.expect("kubectl ends");
        Answer {
            succeeded: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Everything that a person would look at: objects, Events, and the Pods' logs.
    pub async fn dump(&self) -> String {
        let mut text = String::new();
        let kinds = "popularityreports,jobs,pods,leases";
        for arguments in [
            &["get", kinds, "--output", "wide"][..],
            &[
                "get",
                "popularityreports",
                "--output",
                "yaml",
                "--show-managed-fields=false",
            ],
            &[
                "get",
                "jobs",
                "--output",
                "jsonpath={range .items[*]}{.metadata.name}{' '}{.status}{'\\n'}{end}",
            ],
            &["get", "events", "--sort-by", ".lastTimestamp"],
        ] {
            let answer = self.kubectl(arguments).await;
            text.push_str(&format!(
                "$ kubectl {}\n{}{}\n",
                arguments.join(" "),
                answer.stdout,
                answer.stderr
            ));
        }
        for pod in self.pods().await {
            let name = pod.name_any();
            let parameters = LogParams {
                tail_lines: Some(40),
                ..LogParams::default()
            };
            let log = self.api::<Pod>().logs(&name, &parameters).await;
            text.push_str(&format!(
                "log of {name}:\n{}\n",
                log.unwrap_or_else(|error| error.to_string())
            ));
        }
        text
    }

    /// Removes the namespace. What only Kubernetes has to do is not waited for: it takes 5 s for an empty
    /// namespace. Finalizers that no operator is there to remove any more would hold it up for ever, so they
    /// are removed here.
    pub async fn delete(self) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let deleted = namespaces.delete(&self.namespace, &DeleteParams::default()).await;
        deleted.expect("the namespace can be deleted");
        let released = async || {
            let reports = self.reports().await;
            for report in &reports {
                let without = serde_json::json!({"metadata": {"finalizers": null}});
                let released = self
                    .api::<PopularityReport>()
                    .patch(
                        &report.name_any(),
                        &PatchParams::default(),
                        &Patch::Merge(&without),
                    )
                    .await;
                match released {
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    other => drop(other.expect("a finalizer can be removed")),
                }
            }
            reports.is_empty().then_some(())
        };
        until("the test's reports are gone", Duration::from_secs(30), released).await;
    }
}

/// What a command said.
#[derive(Debug)]
pub struct Answer {
    /// Whether its exit code was 0.
    pub succeeded: bool,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

/// Installs the definition once per run of the tests, and waits until the API server serves it.
async fn install_definition(client: &Client) {
    static INSTALLED: OnceCell<()> = OnceCell::const_new();
    INSTALLED
        .get_or_init(async || {
            let definition = crds::manifest::definition();
            let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
            let name = definition.name_any();
            definitions
                .patch(
                    &name,
                    &PatchParams::apply(FIELD_MANAGER).force(),
                    &Patch::Apply(&definition),
                )
                .await
                .expect("the definition of PopularityReport is accepted");
            let served = async || {
                let reports: Api<PopularityReport> = Api::default_namespaced(client.clone());
                reports.list(&ListParams::default().limit(1)).await.ok().map(drop)
            };
            until(
                "the API server serves PopularityReports",
                Duration::from_secs(30),
                served,
            )
            .await;
        })
        .await;
}

/// A forwarder to the API server, and a kubeconfig that goes by it.
async fn forwarder(platform: &Platform, folder: &Path) -> (Proxy, PathBuf) {
    let mut kubeconfig = platform.read_kubeconfig();
    let (server, cluster) = current_cluster(&mut kubeconfig);
    let host = server.host_str().expect("a server has a host").to_owned();
    let port = server.port_or_known_default().expect("https has a port");
    let proxy = Proxy::start("127.0.0.1", &format!("{host}:{port}")).await;
    cluster.server = Some(format!("https://{}", proxy.address()));
    cluster.tls_server_name = Some(cluster.tls_server_name.take().unwrap_or(host));
    let path = folder.join("kubeconfig");
    let text = serde_yaml_ng::to_string(&kubeconfig).expect("a kubeconfig is YAML");
    tokio::fs::write(&path, text)
        .await
        .expect("the test's folder can be written");
    (proxy, path)
}

fn current_cluster(kubeconfig: &mut Kubeconfig) -> (url::Url, &mut kube::config::Cluster) {
    let context = kubeconfig.current_context.clone();
    let name = kubeconfig
        .contexts
        .iter()
        .find(|named| Some(&named.name) == context.as_ref())
        .and_then(|named| named.context.as_ref())
        .map(|context| context.cluster.clone())
        .expect("KUBECONFIG has a current context");
    let cluster = kubeconfig
        .clusters
        .iter_mut()
        .find(|named| named.name == name)
        .and_then(|named| named.cluster.as_mut())
        .expect("KUBECONFIG has the cluster of its current context");
    let server = cluster.server.as_deref().expect("a cluster has a server");
    (server.parse().expect("a server is a URL"), cluster)
}

/// A label's value: 63 characters of a small alphabet.
fn label(test: &str) -> String {
    let name = test.rsplit("::").next().unwrap_or(test);
    name.chars()
        .take(63)
        .collect::<String>()
        .trim_matches('_')
        .to_owned()
}
