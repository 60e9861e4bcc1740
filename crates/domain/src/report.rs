//! A report as the row tells it.

use jiff::Timestamp;
use uuid::Uuid;

use crate::{AttemptNumber, Parameters, Progress, ReportId, State};

/// A report. The row in PostgreSQL is the truth; this is one reading of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its id.
    pub id: ReportId,
    /// The user who asked for it over REST; none when it came as a custom resource.
    pub requested_by: Option<Uuid>,
    /// What was asked, defaults included.
    pub parameters: Parameters,
    /// Where it is, with the data of that state.
    pub progress: Progress,
    /// How many exporters have begun.
    pub attempts: AttemptNumber,
    /// When the consumer took its message; kept through all states.
    pub dispatched_at: Option<Timestamp>,
    /// When the first attempt began; kept through all states.
    pub started_at: Option<Timestamp>,
    /// When its outbox message was accepted by Service Bus.
    pub relayed_at: Option<Timestamp>,
    /// Its custom resource, as soon as one is known.
    pub custom_resource: Option<CustomResourceRef>,
    /// When the custom resource was deleted, by a person or by its time to live.
    pub custom_resource_deleted_at: Option<Timestamp>,
    /// The W3C `traceparent` of the request, for the trace to go on in operator and exporter.
    pub traceparent: Option<String>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// After this moment the report and its file may be gone.
    pub expires_at: Timestamp,
    /// When the row last changed.
    pub updated_at: Timestamp,
}

impl Report {
    /// The word for where it is.
    pub const fn state(&self) -> State {
        self.progress.state()
    }

    /// When it ended, if it has.
    pub const fn finished_at(&self) -> Option<Timestamp> {
        match &self.progress {
            Progress::Completed { finished_at, .. } | Progress::Failed { finished_at, .. } => {
                Some(*finished_at)
            }
            Progress::Pending { .. } | Progress::Processing { .. } => None,
        }
    }
}

/// Which `PopularityReport` object stands for the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomResourceRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid: a new object of the same name is another one.
    pub uid: String,
}
