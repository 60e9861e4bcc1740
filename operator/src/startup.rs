//! What the operator needs before its parts may begin.

use blob::BlobStore;
use checks::Check;
use kube::Client;
use kubernetes::{OwnPod, Told, rights};
use sqlx::PgPool;
use store::checks::Program;

/// The name of a blob that need not be there.
const PROBE: &str = "operator-startup";

/// What is looked at.
#[derive(Clone)]
pub struct Dependencies {
    /// The reports' database.
    pub database: PgPool,
    /// The broker.
    pub servicebus: servicebus::Client,
    /// The queue.
    pub queue: String,
    /// The container.
    pub blobs: BlobStore,
    /// Whether to make the container when it is missing.
    pub create_container: bool,
    /// The cluster.
    pub client: Client,
    /// The reports' namespace.
    pub namespace: String,
    /// The Lease.
    pub lease: String,
}

impl Dependencies {
    /// Looks at all of it. The rights in Kubernetes are asked for until they are there, and not again: later
    /// each request that is refused says so.
    pub async fn look(&self, begun: bool) -> Vec<Check> {
        let (reports, queue, container, cluster) = tokio::join!(
            store::checks::reports(&self.database, Program::Operator),
            servicebus::checks::queue(&self.servicebus, &self.queue),
            self.container(),
            async {
                if begun {
                    return Vec::new();
                }
                kubernetes::checks::to_begin(&self.client, &self.namespace, &self.lease, rights::OPERATOR)
                    .await
            },
        );
        [reports, queue, vec![container], cluster].concat()
    }
}

impl Dependencies {
    async fn container(&self) -> Check {
        let check = blob::checks::read(&self.blobs, PROBE).await;
        if !self.create_container || !check.is_missing() {
            return check;
        }
        match self.blobs.ensure_container().await {
            Ok(()) => {
                tracing::info!(container = self.blobs.container(), "made the container");
                blob::checks::read(&self.blobs, PROBE).await
            }
            // what is missing is told with the command that makes it
            Err(error) => {
                tracing::debug!(
                    error = crate::error_chain::error_chain(&error),
                    "the container was not made"
                );
                check
            }
        }
    }
}

/// Sends a warning on the operator's own Pod, and says what became of it.
pub async fn tell(pod: Option<&OwnPod>, client: &Client, note: &str) -> String {
    match pod {
        Some(pod) => pod.warn(client, OwnPod::NOT_READY, note).await,
        None => Told::NoPod,
    }
    .to_string()
}
