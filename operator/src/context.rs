//! What every reconcile works with.

use std::num::NonZeroUsize;
use std::sync::Arc;

use blob::BlobStore;
use domain::ReportId;
use jiff::Timestamp;
use kube::Client;
use kube::runtime::events::Recorder;
use sqlx::PgPool;
use tokio::sync::broadcast;

use crate::config::ExporterArgs;
use crate::metrics::Metrics;
use crate::places::Places;

/// Everything outside of one report.
#[derive(Clone)]
pub struct Context {
    /// The cluster.
    pub client: Client,
    /// The reports' database.
    pub database: PgPool,
    /// The files.
    pub blobs: BlobStore,
    /// What a Job is made of.
    pub exporter: Arc<ExporterArgs>,
    /// The places for exporters.
    pub places: Arc<Places>,
    /// Wakes other reports.
    pub wakes: Wakes,
    /// Sends Events.
    pub recorder: Recorder,
    /// Counts.
    pub metrics: Metrics,
    /// Tells the time.
    pub clock: fn() -> Timestamp,
}

impl Context {
    /// Now.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// The same for a new term of leadership, with all places free.
    #[must_use]
    pub fn with_places(&self, most: NonZeroUsize) -> Self {
        Self {
            places: Arc::new(Places::new(most)),
            ..self.clone()
        }
    }
}

/// What the controller is to look at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// One report.
    Report(ReportId),
    /// All: something may have been missed.
    All,
}

/// Asks the controller to look at reports again. Where none runs (on a standby) nobody listens, and nothing
/// is lost: a new leader looks at every report anyway.
#[derive(Clone, Debug)]
pub struct Wakes(broadcast::Sender<Wake>);

impl Wakes {
    /// Room for so many wake-ups that were not taken yet; beyond it, all reports are looked at.
    const CAPACITY: usize = 1_024;

    /// Nobody listens yet.
    pub fn new() -> Self {
        Self(broadcast::Sender::new(Self::CAPACITY))
    }

    /// Wakes these reports.
    pub fn wake(&self, reports: impl IntoIterator<Item = ReportId>) {
        for report in reports {
            self.send(Wake::Report(report));
        }
    }

    /// Wakes all.
    pub fn wake_all(&self) {
        self.send(Wake::All);
    }

    fn send(&self, wake: Wake) {
        // an error says that nobody listens, which is as good
        drop(self.0.send(wake));
    }

    /// Listens from now on.
    pub fn listen(&self) -> broadcast::Receiver<Wake> {
        self.0.subscribe()
    }
}

impl Default for Wakes {
    fn default() -> Self {
        Self::new()
    }
}
