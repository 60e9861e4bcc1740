//! The message that asks for an export: versioned JSON, small enough for any queue.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Parameters, ReportId};

/// The payload of the outbox message and of the Service Bus message.
///
/// The row is the truth: the parameters are here for people who look at the queue, and whoever acts
/// reads the row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExportRequested {
    /// The version of this shape; see [`ExportRequested::VERSION`].
    pub version: u32,
    /// The report to export.
    pub report_id: ReportId,
    /// What was asked, defaults included.
    pub parameters: Parameters,
    /// When the report was accepted.
    pub requested_at: Timestamp,
}

/// Why a message's body is not an [`ExportRequested`] that this version understands.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// Not JSON, or a field is missing or of the wrong type.
    #[error("the body is not an ExportRequested message")]
    Malformed(#[source] serde_json::Error),
    /// A later version wrote it.
    #[error("the message has version {0}, and this operator understands version {known} only", known = ExportRequested::VERSION)]
    UnsupportedVersion(u32),
}

impl ExportRequested {
    /// The version that this code writes and reads.
    pub const VERSION: u32 = 1;
    /// The event's name: the outbox column `type`, and the message's subject.
    pub const TYPE: &'static str = "ExportRequested";
    /// The kind of thing that the event is about: the outbox column `aggregatetype`.
    pub const AGGREGATE_TYPE: &'static str = "popularity-report";

    /// The message for a report that was just accepted.
    pub const fn new(report_id: ReportId, parameters: Parameters, requested_at: Timestamp) -> Self {
        Self {
            version: Self::VERSION,
            report_id,
            parameters,
            requested_at,
        }
    }

    /// Reads a message's body. The version is looked at first, so that a later shape is named as
    /// such instead of as malformed. Fields that this version does not know are passed over.
    ///
    /// # Errors
    /// [`EventError`]; both kinds are permanent.
    pub fn from_slice(body: &[u8]) -> Result<Self, EventError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_slice(body).map_err(EventError::Malformed)?;
        if version != Self::VERSION {
            return Err(EventError::UnsupportedVersion(version));
        }
        serde_json::from_slice(body).map_err(EventError::Malformed)
    }
}
