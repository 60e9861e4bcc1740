//! What every handler has at hand.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;

use crate::auth::Tokens;
use crate::custom_resources::CustomResources;
use crate::downloads::Downloads;
use crate::metrics::Metrics;

/// Shared by all requests; cheap to clone.
#[derive(Clone)]
pub struct Service(Arc<Parts>);

/// The parts of the [`Service`].
pub struct Parts {
    /// The reports' database.
    pub pool: PgPool,
    /// Whose tokens are believed.
    pub tokens: Tokens,
    /// Links to finished files.
    pub downloads: Downloads,
    /// What Kubernetes shows of the reports.
    pub custom_resources: CustomResources,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How long a report is kept from its request on.
    pub retention: Duration,
    /// How many unfinished reports a user may have.
    pub most_unfinished: u32,
    /// The longest that a request may take from its head to the head of its answer, the arrival of
    /// the body included.
    pub request_timeout: Duration,
}

impl Service {
    /// Shares the parts.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for Service {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
