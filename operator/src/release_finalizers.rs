//! What runs before the chart is uninstalled: our finalizer waits for an operator, so a report that outlived
//! it could never be deleted, nor its namespace.
//!
//! First whoever puts the finalizer there is stopped: operator and API. The reports themselves stay, and
//! exporters that run go on: an operator that is installed again takes both up where they are.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crds::{PopularityReport, names};

/// How often Pods that are ending are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Why the finalizers are still there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A Deployment's scale.
    #[error("failed to stop Deployment {0}")]
    Stop(String, #[source] kube::Error),
    /// A Deployment whose Pods cannot be told by their labels.
    #[error("Deployment {0} does not select its Pods by labels")]
    NoSelector(String),
    /// The Pods.
    #[error("failed to list the Pods of Deployment {0}")]
    ListPods(String, #[source] kube::Error),
    /// A Pod does not end.
    #[error("Pod {pod} was still there after {seconds} s")]
    StillRunning {
        /// Its name.
        pod: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The reports.
    #[error("failed to list the PopularityReports")]
    List(#[source] kube::Error),
    /// One of them.
    #[error("failed to take the finalizer off PopularityReport {0}")]
    Release(String, #[source] kube::Error),
}

/// Stops the Deployments and takes our finalizer off every report of the namespace; the answer is of how many.
/// Can be run again.
///
/// # Errors
/// [`Error`]
pub async fn run(
    client: &Client,
    namespace: &str,
    deployments: &[String],
    patience: Duration,
) -> Result<usize, Error> {
    let until = Instant::now() + patience;
    let mut selectors = Vec::new();
    for name in deployments {
        if let Some(selector) = stop(client, namespace, name).await? {
            selectors.push((name, selector));
        }
    }
    for (name, selector) in &selectors {
        ended(client, namespace, name, selector, until, patience).await?;
    }
    let mut released = 0;
    loop {
        match release_all(client, namespace).await? {
            0 => return Ok(released),
            count => released += count,
        }
    }
}

/// Scales a Deployment to nothing, and tells by which labels to find its Pods; none when it is gone.
async fn stop(client: &Client, namespace: &str, name: &str) -> Result<Option<String>, Error> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let failed = |error| Error::Stop(name.to_owned(), error);
    let Some(deployment) = api.get_opt(name).await.map_err(failed)? else {
        return Ok(None);
    };
    let nothing = Patch::Merge(json!({"spec": {"replicas": 0}}));
    api.patch_scale(name, &PatchParams::default(), &nothing)
        .await
        .map_err(failed)?;
    let labels = deployment.spec.and_then(|spec| spec.selector.match_labels);
    let labels = labels.ok_or_else(|| Error::NoSelector(name.to_owned()))?;
    let labels: Vec<_> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    tracing::info!(deployment = name, "stopping");
    Ok(Some(labels.join(",")))
}

async fn ended(
    client: &Client,
    namespace: &str,
    name: &str,
    selector: &str,
    until: Instant,
    patience: Duration,
) -> Result<(), Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let parameters = ListParams::default().labels(selector);
    loop {
        let pods = api.list(&parameters).await;
        let pods = pods.map_err(|error| Error::ListPods(name.to_owned(), error))?;
        let Some(pod) = pods.items.first() else {
            return Ok(());
        };
        if Instant::now() >= until {
            return Err(Error::StillRunning {
                pod: pod.name_any(),
                seconds: patience.as_secs(),
            });
        }
        sleep(LOOK_EVERY).await;
    }
}

/// One round; the answer is how many had the finalizer. Who was changed meanwhile is met by the next one.
async fn release_all(client: &Client, namespace: &str) -> Result<usize, Error> {
    let api: Api<PopularityReport> = Api::namespaced(client.clone(), namespace);
    let reports = api.list(&ListParams::default()).await.map_err(Error::List)?;
    let mut had_it = 0;
    for report in reports {
        let finalizers = report.finalizers();
        if !finalizers.iter().any(|finalizer| finalizer == names::FINALIZER) {
            continue;
        }
        had_it += 1;
        let others: Vec<_> = finalizers
            .iter()
            .filter(|name| *name != names::FINALIZER)
            .collect();
        let patch = Patch::Merge(json!({"metadata": {
            "resourceVersion": report.metadata.resource_version,
            "finalizers": others,
        }}));
        let parameters = PatchParams {
            field_manager: Some(names::FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let name = report.name_any();
        match api.patch(&name, &parameters, &patch).await {
            Ok(_) => tracing::info!(name, "released"),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => return Err(Error::Release(name, error)),
        }
    }
    Ok(had_it)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::testing::*;

    const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/music/deployments/operator";
    const PODS: &str = "/api/v1/namespaces/music/pods";
    const REPORTS: &str = "/apis/reports.musicalbums.dev/v1alpha1/namespaces/music/popularityreports";

    fn list(kind: &str, items: &[Value]) -> Value {
        json!({"apiVersion": "v1", "kind": kind, "metadata": {}, "items": items})
    }

    fn report(finalizers: &[&str]) -> Value {
        serde_json::to_value(object(json!({"metadata": {"finalizers": finalizers}}))).unwrap()
    }

    fn stopping() -> [Exchange; 2] {
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "operator"},
            "spec": {"selector": {"matchLabels": {"component": "operator"}}, "template": {}},
        });
        let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {}});
        [
            found("GET", DEPLOYMENT, deployment),
            found("PATCH", &format!("{DEPLOYMENT}/scale"), scale),
        ]
    }

    fn pods(names: &[&str]) -> Exchange {
        let pods: Vec<_> = names
            .iter()
            .map(|name| json!({"metadata": {"name": name}}))
            .collect();
        found("GET", PODS, list("PodList", &pods)).with("labelSelector=component")
    }

    fn reports(items: &[Value]) -> Exchange {
        found("GET", REPORTS, list("PopularityReportList", items))
    }

    fn release() -> Exchange {
        let path = format!("{REPORTS}/{NAME}");
        found("PATCH", &path, report(&[])).by_manager()
    }

    #[tokio::test]
    async fn reports_are_released_when_the_last_pod_that_would_hold_them_again_is_gone() {
        let [get, scale] = stopping();
        let (client, seen) = api_server([
            get,
            scale,
            pods(&["operator-1"]),
            pods(&[]),
            reports(&[report(&["other/one", names::FINALIZER]), report(&["other/one"])]),
            release(),
            reports(&[report(&["other/one"])]),
        ]);

        let released = run(
            &client,
            NAMESPACE,
            &["operator".to_owned()],
            Duration::from_secs(9),
        )
        .await;

        assert_eq!(released.unwrap(), 1);
        drop(client);
        let bodies = seen.bodies().await;
        assert_eq!(bodies[1], json!({"spec": {"replicas": 0}}));
        assert_eq!(bodies[5]["metadata"]["finalizers"], json!(["other/one"]));
        assert_eq!(bodies[5]["metadata"]["resourceVersion"], "7");
    }

    #[tokio::test]
    async fn a_report_that_somebody_changed_meanwhile_is_tried_again() {
        let ours = || report(&[names::FINALIZER]);
        let (client, seen) = api_server([
            reports(&[ours()]),
            release().refused(409, "the object has been modified"),
            reports(&[ours()]),
            release(),
            reports(&[]),
        ]);

        run(&client, NAMESPACE, &[], Duration::ZERO).await.unwrap();

        drop(client);
        seen.bodies().await;
    }

    #[tokio::test]
    async fn nothing_is_released_while_a_pod_runs_that_does_not_end() {
        let [get, scale] = stopping();
        let (client, seen) = api_server([get, scale, pods(&["operator-1"])]);

        let outcome = run(&client, NAMESPACE, &["operator".to_owned()], Duration::ZERO).await;

        assert_eq!(
            outcome.unwrap_err().to_string(),
            "Pod operator-1 was still there after 0 s"
        );
        drop(client);
        seen.bodies().await;
    }
}
