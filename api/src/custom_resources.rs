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
        Self::with_client(client, args.reports_namespace.clone(), metrics)
    }

    fn with_client(client: Option<kube::Client>, namespace: String, metrics: Arc<Metrics>) -> Self {
        Self {
            client,
            namespace,
            metrics,
            places: Arc::new(Semaphore::new(CONCURRENT_MAX)),
            under_way: TaskTracker::new(),
        }
    }

    /// The namespace that the resources are created in.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The cluster, when there is one.
    pub fn client(&self) -> Option<kube::Client> {
        self.client.clone()
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Mutex;

    use axum::http::{Request, Response};
    use domain::{AttemptNumber, Parameters, Progress};
    use kube::client::Body;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;
    use serde_json::{Value, json};

    use super::*;

    fn a_report() -> Report {
        let moment = "2026-01-31T12:00:00Z".parse().unwrap();
        Report {
            id: "0190b7c4-0000-7000-8000-000000000001".parse().unwrap(),
            requested_by: None,
            parameters: Parameters::default(),
            progress: Progress::accepted(),
            attempts: AttemptNumber::NONE,
            dispatched_at: None,
            started_at: None,
            relayed_at: None,
            custom_resource: None,
            custom_resource_deleted_at: None,
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
            created_at: moment,
            expires_at: moment,
            updated_at: moment,
        }
    }

    struct Counted {
        resources: CustomResources,
        registry: Registry,
    }

    impl Counted {
        fn with(client: Option<kube::Client>) -> Self {
            let mut registry = Registry::default();
            let metrics = Arc::new(Metrics::register(&mut registry));
            Self {
                resources: CustomResources::with_client(client, "reports-test".to_owned(), metrics),
                registry,
            }
        }

        /// Lines such as `custom_resources_total{outcome="Created"} 1`.
        fn counts(&self) -> Vec<String> {
            let mut text = String::new();
            encode(&mut text, &self.registry).unwrap();
            text.lines()
                .filter(|line| line.starts_with("custom_resources_total"))
                .map(|line| line.replace("custom_resources_total", ""))
                .collect()
        }
    }

    type Seen = Arc<Mutex<Vec<(String, Value)>>>;

    /// An API server that gives one answer to everything, and what it was asked.
    fn answers(status: u16, body: Value) -> (kube::Client, Seen) {
        let seen = Seen::default();
        let log = Arc::clone(&seen);
        let service = tower::service_fn(move |request: Request<Body>| {
            let (log, body) = (Arc::clone(&log), body.clone());
            async move {
                let call = format!("{} {}", request.method(), request.uri());
                let sent = request.into_body().collect_bytes().await.unwrap();
                log.lock()
                    .unwrap()
                    .push((call, serde_json::from_slice(&sent).unwrap()));
                let answer = Response::builder().status(status);
                Ok::<_, Infallible>(answer.body(Body::from(body.to_string().into_bytes())).unwrap())
            }
        });
        (kube::Client::new(service, "default"), seen)
    }

    fn silent() -> kube::Client {
        let service = tower::service_fn(|_: Request<Body>| {
            std::future::pending::<Result<Response<Body>, Infallible>>()
        });
        kube::Client::new(service, "default")
    }

    fn status(code: u16, reason: &str) -> Value {
        json!({
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "reason": reason,
            "message": "",
            "code": code,
        })
    }

    #[tokio::test]
    async fn the_resource_of_the_row_is_created_by_the_services_own_field_manager() {
        let stored = serde_json::to_value(PopularityReport::for_row(&a_report(), "reports-test")).unwrap();
        let (client, seen) = answers(201, stored.clone());
        let counted = Counted::with(Some(client));

        counted.resources.create_behind(&a_report());
        counted.resources.finish().await;

        let call = "POST /apis/reports.musicalbums.dev/v1alpha1/namespaces/reports-test/popularityreports?&fieldManager=popularity-reports-api";
        assert_eq!(*seen.lock().unwrap(), [(call.to_owned(), stored)]);
        assert_eq!(counted.counts(), [r#"{outcome="Created"} 1"#]);
    }

    #[tokio::test]
    async fn a_resource_that_the_sweep_made_first_is_as_good() {
        let (client, _) = answers(409, status(409, "AlreadyExists"));
        let counted = Counted::with(Some(client));

        counted.resources.create_behind(&a_report());
        counted.resources.finish().await;

        assert_eq!(counted.counts(), [r#"{outcome="Existed"} 1"#]);
    }

    #[tokio::test]
    async fn a_refusal_is_left_to_the_sweep() {
        let (client, _) = answers(403, status(403, "Forbidden"));
        let counted = Counted::with(Some(client));

        counted.resources.create_behind(&a_report());
        counted.resources.finish().await;

        assert_eq!(counted.counts(), [r#"{outcome="Failed"} 1"#]);
    }

    #[tokio::test(start_paused = true)]
    async fn with_kubernetes_silent_creations_end_and_do_not_pile_up() {
        let counted = Counted::with(Some(silent()));

        for _ in 0..CONCURRENT_MAX + 3 {
            counted.resources.create_behind(&a_report());
        }
        let began = tokio::time::Instant::now();
        counted.resources.finish().await;

        assert_eq!(began.elapsed().as_secs(), CREATE_TIMEOUT.as_secs());
        let mut counts = counted.counts();
        counts.sort();
        assert_eq!(counts, [r#"{outcome="Failed"} 32"#, r#"{outcome="Skipped"} 3"#]);
    }

    #[tokio::test]
    async fn without_a_cluster_nothing_is_tried() {
        let counted = Counted::with(None);

        counted.resources.create_behind(&a_report());
        counted.resources.finish().await;

        assert!(counted.counts().is_empty());
    }
}
