//! The custom resource of a report, created behind the answer. Best effort: what fails here is found
//! and created by the operator's sweep.

use std::sync::Arc;
use std::time::Duration;

use crds::PopularityReport;
use crds::names::API_FIELD_MANAGER;
use domain::Report;
use kube::Api;
use kube::api::PostParams;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::config::KubernetesArgs;
use crate::metrics::{CustomResourceOutcome, Metrics};

/// The longest that one creation may take. The client's own retries would go on for minutes.
const CREATE_TIMEOUT: Duration = Duration::from_secs(5);
/// The most creations under way. With Kubernetes down each takes [`CREATE_TIMEOUT`]; more of them
/// would only pile up.
const CONCURRENT_MAX: usize = 32;

/// Creates custom resources, when there is a cluster to do so in.
pub struct CustomResources {
    client: Option<kube::Client>,
    namespace: String,
    metrics: Arc<Metrics>,
    places: Arc<Semaphore>,
    under_way: TaskTracker,
}

impl CustomResources {
    /// Finds the cluster: the one that this Pod runs in, or the kubeconfig's. Finding none is no
    /// error: the reports then wait for the sweep.
    pub async fn new(args: &KubernetesArgs, metrics: Arc<Metrics>) -> Self {
        let client = if args.kubernetes {
            find_cluster().await
        } else {
            None
        };
        if client.is_none() {
            tracing::warn!("custom resources are left to the operator's sweep");
        }
        Self {
            client,
            namespace: args.reports_namespace.clone(),
            metrics,
            places: Arc::new(Semaphore::new(CONCURRENT_MAX)),
            under_way: TaskTracker::new(),
        }
    }

    /// The namespace that the resources are created in.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Begins to create the resource of this report and returns at once.
    pub fn create_behind(&self, report: &Report) {
        let Some(client) = self.client.clone() else {
            return;
        };
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.metrics.custom_resource(CustomResourceOutcome::Skipped);
            tracing::warn!(report.id = %report.id, "too many custom resources are being created; left to the sweep");
            return;
        };
        let api = Api::namespaced(client, &self.namespace);
        let resource = PopularityReport::for_row(report, &self.namespace);
        let (metrics, id) = (Arc::clone(&self.metrics), report.id);
        self.under_way.spawn(async move {
            let outcome = match tokio::time::timeout(CREATE_TIMEOUT, create(&api, &resource)).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(error)) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(report.id = %id, error, "the custom resource could not be created; left to the sweep");
                    CustomResourceOutcome::Failed
                }
                Err(_) => {
                    tracing::warn!(report.id = %id, "Kubernetes did not answer in time; left to the sweep");
                    CustomResourceOutcome::Failed
                }
            };
            metrics.custom_resource(outcome);
            drop(place);
        });
    }

    /// Waits for what is under way; it ends by itself within [`CREATE_TIMEOUT`].
    pub async fn finish(&self) {
        self.under_way.close();
        self.under_way.wait().await;
    }
}

async fn find_cluster() -> Option<kube::Client> {
    let client = match kube::Config::infer().await {
        Ok(config) => kube::Client::try_from(config),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "no cluster is configured");
            return None;
        }
    };
    client
        .inspect_err(|error| {
            let error = error as &dyn std::error::Error;
            tracing::warn!(error, "the cluster's configuration cannot be used");
        })
        .ok()
}

async fn create(
    api: &Api<PopularityReport>,
    resource: &PopularityReport,
) -> Result<CustomResourceOutcome, kube::Error> {
    let params = PostParams {
        field_manager: Some(API_FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    match api.create(&params, resource).await {
        Ok(_) => Ok(CustomResourceOutcome::Created),
        // the name is the report's, so this is the same resource, made by the sweep or by a retry
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(CustomResourceOutcome::Existed),
        Err(error) => Err(error),
    }
}
