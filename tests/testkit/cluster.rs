//! A namespace of the test's own on the real cluster.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crds::PopularityReport;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Pod, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, LogParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::config::Kubeconfig;
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use tokio::sync::OnceCell;

use crate::command::{self, Answer};
use crate::platform::Platform;
use crate::proxy::Proxy;
use crate::until;

/// How the names of the exporter's Jobs and Pods begin.
const EXPORT: &str = "export-";
/// Who writes what the tests write.
const FIELD_MANAGER: &str = "popularity-reports-tests";

/// The namespace, an administrator's client, and a forwarder through which the test's own Pods can be made to
/// reach the API server.
pub struct Cluster {
    /// The namespace.
    pub namespace: String,
    /// An administrator's client, not by way of the forwarder.
    pub client: Client,
    /// Between the test's Pods and the API server, if they are told to go by it.
    pub proxy: Proxy,
    kubeconfig: PathBuf,
    kubectl: PathBuf,
    helm: PathBuf,
}

impl Cluster {
    /// Creates the namespace, with `restricted` Pod Security as a careful administrator would.
    pub async fn create(platform: &Platform, id: &str, test: &str) -> Self {
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
        Self {
            namespace,
            client,
            proxy: forwarder(platform).await,
            kubeconfig: platform.kubeconfig.clone(),
            kubectl: platform.kubectl.clone(),
            helm: platform.helm.clone(),
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

    /// The exporter's Jobs.
    pub async fn jobs(&self) -> Vec<Job> {
        let jobs: Vec<Job> = self.list().await;
        jobs.into_iter()
            .filter(|job| job.name_any().starts_with(EXPORT))
            .collect()
    }

    /// The exporter's Pods.
    pub async fn pods(&self) -> Vec<Pod> {
        let pods: Vec<Pod> = self.list().await;
        pods.into_iter()
            .filter(|pod| pod.name_any().starts_with(EXPORT))
            .collect()
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

    /// Makes an object of the test's own, or makes it like this.
    pub async fn put<K>(&self, object: &K)
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::Serialize
            + serde::de::DeserializeOwned,
    {
        let name = object.name_any();
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        self.api::<K>()
            .patch(&name, &parameters, &Patch::Apply(object))
            .await
            .unwrap_or_else(|error| panic!("cannot write {name}: {error}"));
    }

    /// Makes or changes a Secret.
    pub async fn put_secret(&self, name: &str, values: BTreeMap<String, String>) {
        let metadata = named(name);
        let secret = Secret {
            metadata,
            string_data: Some(values),
            ..Secret::default()
        };
        self.put(&secret).await;
    }

    /// Makes or changes a ConfigMap.
    pub async fn put_config_map(&self, name: &str, values: BTreeMap<String, String>) {
        let metadata = named(name);
        let map = ConfigMap {
            metadata,
            data: Some(values),
            ..ConfigMap::default()
        };
        self.put(&map).await;
    }

    /// Runs kubectl in the namespace, as a person would.
    pub async fn kubectl(&self, arguments: &[&str]) -> Answer {
        self.kubectl_with_input(arguments, "").await
    }

    /// The same with standard input, as for `apply -f -`.
    pub async fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Answer {
        command::run(&self.kubectl, &self.kubeconfig, &self.namespace, arguments, input).await
    }

    /// Runs helm in the namespace. The values come by standard input, with `--values -`.
    pub async fn helm(&self, arguments: &[&str], values: &str) -> Answer {
        command::run(&self.helm, &self.kubeconfig, &self.namespace, arguments, values).await
    }

    /// Everything that a person would look at: objects, Events, and the Pods' logs.
    pub async fn dump(&self) -> String {
        let mut text = String::new();
        let kinds = "popularityreports,deployments,jobs,pods,leases";
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
        for pod in self.list::<Pod>().await {
            let name = pod.name_any();
            for previous in [true, false] {
                let parameters = LogParams {
                    tail_lines: Some(40),
                    previous,
                    ..LogParams::default()
                };
                let which = if previous { "log before its restart" } else { "log" };
                match self.api::<Pod>().logs(&name, &parameters).await {
                    Ok(log) => text.push_str(&format!("{which} of {name}:\n{log}\n")),
                    // Most have not been restarted.
                    Err(_) if previous => {}
                    Err(error) => text.push_str(&format!("{which} of {name}: {error}\n")),
                }
            }
        }
        text
    }

    /// The releases of helm in the namespace.
    async fn releases(&self) -> Vec<String> {
        let list = self.helm(&["list", "--all", "--short"], "").await;
        assert!(list.succeeded, "{}", list.stderr);
        list.stdout.lines().map(str::to_owned).collect()
    }

    /// Removes what was installed, and the namespace. What only Kubernetes has to do is not waited for: it takes 5 s for an empty
    /// namespace. Finalizers that no operator is there to remove any more would hold it up for ever, so they
    /// are removed here.
    pub async fn delete(self) {
        // The release has objects outside the namespace. What its hook does to the reports is done below.
        for release in self.releases().await {
            let removed = self.helm(&["uninstall", &release, "--no-hooks"], "").await;
            assert!(removed.succeeded, "{}", removed.stderr);
        }
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        match namespaces.delete(&self.namespace, &DeleteParams::default()).await {
            // the test has done it
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            deleted => drop(deleted.expect("the namespace can be deleted")),
        }
        let released = async || {
            let reports = self.reports().await;
            for report in &reports {
                let without = json!({"metadata": {"finalizers": null}});
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

/// A forwarder to the API server where Pods reach it, under an address that the API server's certificate names.
async fn forwarder(platform: &Platform) -> Proxy {
    let kubeconfig = platform.read_kubeconfig();
    let server = current_server(&kubeconfig);
    let host = server.host_str().expect("a server has a host");
    let port = server.port_or_known_default().expect("https has a port");
    Proxy::start(&platform.pods_host, &format!("{host}:{port}")).await
}

fn current_server(kubeconfig: &Kubeconfig) -> url::Url {
    let context = kubeconfig.current_context.as_ref();
    let context = kubeconfig
        .contexts
        .iter()
        .find(|named| Some(&named.name) == context)
        .and_then(|named| named.context.as_ref())
        .expect("KUBECONFIG has a current context");
    let cluster = kubeconfig
        .clusters
        .iter()
        .find(|named| named.name == context.cluster)
        .and_then(|named| named.cluster.as_ref())
        .expect("KUBECONFIG has the cluster of its current context");
    let server = cluster.server.as_deref().expect("a cluster has a server");
    server.parse().expect("a server is a URL")
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    }
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
