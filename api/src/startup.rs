//! What the service needs before it calls itself ready.

use std::sync::Arc;

use checks::Check;
use kubernetes::{OwnPod, Told, rights};
use runtime::needs::Watch;
use store::checks::Program;
use tokio_util::sync::CancellationToken;

use crate::service::Service;

/// The name that `operator doctor --as` has for it.
pub const PROGRAM: &str = "api";
/// Once it was ready, it stays so without these: a request is still accepted, and a status still told.
pub const ONLY_TO_BEGIN: &[&str] = &[
    blob::checks::names::READ,
    kubernetes::checks::names::DEFINITION,
    kubernetes::checks::names::RIGHTS,
];
/// The name of a blob that need not be there.
const PROBE: &str = "api-startup";

/// Looks, and tells changes, until the token is cancelled.
pub async fn watch(watch: Watch, service: Service, pod: Option<OwnPod>, shutdown: CancellationToken) {
    let pod = Arc::new(pod);
    let client = service.custom_resources.client();
    let look = |begun| look(service.clone(), begun);
    let tell = |note: String| {
        let (pod, client) = (Arc::clone(&pod), client.clone());
        async move {
            match (pod.as_ref(), &client) {
                (Some(pod), Some(client)) => pod.warn(client, OwnPod::NOT_READY, &note).await,
                _ => Told::NoPod,
            }
            .to_string()
        }
    };
    watch.run(look, tell, shutdown).await;
}

/// The rights in Kubernetes are asked for until they are there, and not again: later each request that is
/// refused says so.
async fn look(service: Service, begun: bool) -> Vec<Check> {
    let (reports, container, cluster) = tokio::join!(
        store::checks::reports(&service.pool, Program::Api),
        blob::checks::read(service.downloads.blobs(), PROBE),
        async {
            match service.custom_resources.client() {
                Some(client) if !begun => {
                    let namespace = service.custom_resources.namespace();
                    kubernetes::checks::to_begin(&client, namespace, "", rights::API).await
                }
                _ => Vec::new(),
            }
        },
    );
    [reports, vec![container], cluster].concat()
}
