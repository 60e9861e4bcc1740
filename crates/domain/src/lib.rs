//! What a popularity report is: its parameters, its states and the ways between them, the reasons
//! for which it can fail, and the message that asks for its export.
//!
//! Pure: no I/O, no clock, no randomness. Times and ids come in as arguments.

mod artifact;
mod event;
mod failure;
mod ids;
mod parameters;
mod report;
mod state;

pub use artifact::{Artifact, BlobName, SCHEMA, Sha256};
pub use event::{EventError, ExportRequested};
pub use failure::{Failure, FailureReason, UnknownReason};
pub use ids::{AttemptNumber, OutboxId, ReportId};
pub use parameters::{
    Compression, GENRE_MAX_LEN, Instant, LIMIT_MAX, MIN_RATINGS_MAX, PRIOR_WEIGHT_MAX, ParameterError,
    ParameterErrors, Parameters, TIMESTAMP_PATTERN, messages,
};
pub use report::{CustomResourceRef, Report};
pub use state::{Event, InvalidTransition, Progress, State, UnknownState};
