//! Where the real parts are. `cargo xtask test` starts them and sets these variables; `cargo xtask env`
//! prints them for a run by hand.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use url::Url;

use crate::until;

/// The addresses of the platform, read from the environment.
pub struct Platform {
    /// The kubeconfig of a cluster's administrator (`KUBECONFIG`).
    pub kubeconfig: PathBuf,
    /// The storage account (`AZURE_STORAGE_CONNECTION_STRING`).
    pub storage: String,
    /// The address of this machine as Pods reach it (`PODS_HOST`). PostgreSQL and Azurite listen there too.
    pub pods_host: String,
    /// The tag of the product's images, on the node already and with crash points compiled in (`IMAGE_TAG`,
    /// `failpoints` when unset).
    pub image_tag: String,
    /// The chart that is installed (`CHART`, this checkout's own when unset).
    pub chart: PathBuf,
    /// How helm is called (`HELM`, `helm` when unset).
    pub helm: PathBuf,
    /// How kubectl is called (`KUBECTL`, `kubectl` when unset).
    pub kubectl: PathBuf,
    /// How psql is called (`PSQL`, `psql` when unset).
    pub psql: PathBuf,
}

impl Platform {
    /// Reads the environment.
    ///
    /// # Panics
    /// When a variable is missing or malformed, saying which and what it is for.
    pub fn from_env() -> Self {
        // `store::testing` reads it itself.
        variable(
            "ADMIN_DATABASE_URL",
            "a PostgreSQL role that may create databases and roles",
        );
        Self {
            kubeconfig: variable("KUBECONFIG", "the cluster to run the reports on").into(),
            storage: variable(
                "AZURE_STORAGE_CONNECTION_STRING",
                "the storage account, such as Azurite",
            ),
            pods_host: optional("PODS_HOST").unwrap_or_else(|| "172.30.0.1".to_owned()),
            image_tag: optional("IMAGE_TAG").unwrap_or_else(|| "failpoints".to_owned()),
            chart: optional("CHART").map_or_else(own_chart, PathBuf::from),
            helm: optional("HELM").unwrap_or_else(|| "helm".to_owned()).into(),
            kubectl: optional("KUBECTL").unwrap_or_else(|| "kubectl".to_owned()).into(),
            psql: optional("PSQL").unwrap_or_else(|| "psql".to_owned()).into(),
        }
    }

    /// The kubeconfig, read.
    pub fn read_kubeconfig(&self) -> Kubeconfig {
        Kubeconfig::read_from(&self.kubeconfig)
            .unwrap_or_else(|error| panic!("cannot read KUBECONFIG {}: {error}", self.kubeconfig.display()))
    }

    /// The chart of the release before this one (`PREVIOUS_CHART`) and the tag of its images, on the node
    /// already (`PREVIOUS_IMAGE_TAG`).
    pub fn previous_release(&self) -> (PathBuf, String) {
        let chart = variable("PREVIOUS_CHART", "the chart to upgrade from");
        let tag = variable("PREVIOUS_IMAGE_TAG", "the tag of the images to upgrade from");
        (chart.into(), tag)
    }

    /// An administrator's client.
    pub async fn kube_client(&self) -> kube::Client {
        let config =
            kube::Config::from_custom_kubeconfig(self.read_kubeconfig(), &KubeConfigOptions::default())
                .await
                .unwrap_or_else(|error| panic!("KUBECONFIG cannot be used: {error}"));
        let client = kube::Client::try_from(config).expect("a client of a kubeconfig that was read");
        let answers = async || client.apiserver_version().await.ok();
        until("the API server answers", Duration::from_secs(30), answers).await;
        client
    }

    /// Replaces the host of an address by the one that Pods reach.
    pub fn as_pods_see(&self, address: &Url) -> Url {
        let mut address = address.clone();
        let replaced = address.set_host(Some(&self.pods_host));
        replaced.unwrap_or_else(|error| panic!("PODS_HOST '{}': {error}", self.pods_host));
        address
    }

    /// A connection string whose blob endpoint is another one.
    pub fn storage_at(&self, endpoint: &Url) -> String {
        self.storage
            .split(';')
            .map(|part| match part.split_once('=') {
                Some(("BlobEndpoint", _)) => format!("BlobEndpoint={endpoint}"),
                _ => part.to_owned(),
            })
            .collect::<Vec<_>>()
            .join(";")
    }

    /// The blob endpoint of the storage account.
    pub fn blob_endpoint(&self) -> Url {
        let endpoint = self
            .storage
            .split(';')
            .find_map(|part| part.strip_prefix("BlobEndpoint="));
        let Some(Ok(endpoint)) = endpoint.map(str::parse) else {
            panic!(
                "AZURE_STORAGE_CONNECTION_STRING must name a BlobEndpoint, so that Pods can be given another"
            );
        };
        endpoint
    }
}

fn optional(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn variable(name: &str, meaning: &str) -> String {
    optional(name).unwrap_or_else(|| {
        panic!("{name} is not set: {meaning}. Run `cargo xtask test`, or `eval \"$(cargo xtask env)\"` first")
    })
}

fn own_chart() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = tests.parent().expect("the tests are in a workspace");
    root.join("charts/popularity-reports")
}
