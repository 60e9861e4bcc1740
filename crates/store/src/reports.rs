//! The reports: the rows that decide.
//!
//! Every statement that moves a report names the state that it expects, as
//! [`Progress`](domain::Progress) does; when somebody else was there first, the outcome is
//! [`Transition::Superseded`], which the caller has to name.

mod accept;
mod custom_resource;
mod file;
mod row;
mod transition;

use std::time::Duration;

use domain::{ParameterErrors, Report, ReportId};
use sqlx::PgPool;

use crate::Notifications;

pub use accept::{Adoption, Idempotency, NewReport, Requested, adopt, request, request_with};
pub use custom_resource::{Unsettled, record_cr, record_cr_deleted, to_sweep};
pub use file::{retain_file, with_unwanted_file};
pub use transition::{Transition, begin, complete, dispatch, fail};

/// Which statement on the reports failed, or which row makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// See [`request`].
    #[error("failed to store the requested report")]
    Request(#[source] sqlx::Error),
    /// The requester has used the key for another request.
    #[error("the idempotency key was used for another request already")]
    IdempotencyKeyReused,
    /// The requester has as many unfinished reports as one may have.
    #[error("the requester has {limit} unfinished reports already")]
    TooManyUnfinished {
        /// How many one may have.
        limit: u32,
        /// When an end is likely.
        retry_after: Duration,
    },
    /// See [`adopt`].
    #[error("failed to store the report of a custom resource")]
    Adopt(#[source] sqlx::Error),
    /// See [`get`].
    #[error("failed to read the report")]
    Get(#[source] sqlx::Error),
    /// See [`waiting`].
    #[error("failed to read the waiting reports")]
    Waiting(#[source] sqlx::Error),
    /// See [`to_sweep`].
    #[error("failed to read the reports to sweep")]
    ToSweep(#[source] sqlx::Error),
    /// See [`record_cr`] and [`record_cr_deleted`].
    #[error("failed to record the report's custom resource")]
    RecordCr(#[source] sqlx::Error),
    /// See [`retain_file`].
    #[error("failed to record that the report's file stays")]
    RetainFile(#[source] sqlx::Error),
    /// See [`with_unwanted_file`].
    #[error("failed to read whose files nobody wants")]
    WithUnwantedFile(#[source] sqlx::Error),
    /// See [`dispatch`], [`begin`], [`complete`] and [`fail`].
    #[error("failed to record that a report took {event}")]
    Transition {
        /// The event.
        event: domain::Event,
        /// The cause.
        #[source]
        source: sqlx::Error,
    },
    /// See [`listen`].
    #[error("failed to listen for reports")]
    Listen(#[source] sqlx::Error),
    /// The stored parameters are not valid for this version of the code.
    #[error("report {id} has stored parameters that are not valid here")]
    InvalidParameters {
        /// The report.
        id: ReportId,
        /// Every wrong field.
        #[source]
        source: ParameterErrors,
    },
    /// A row that the CHECK constraints and this code should not allow.
    #[error("report {id} in table reports has an impossible {column}")]
    Inconsistent {
        /// The report.
        id: ReportId,
        /// The column that makes no sense.
        column: &'static str,
    },
}

impl Error {
    /// Whether the database is away, so that the same call can be expected to succeed later.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Request(source)
            | Self::Adopt(source)
            | Self::Get(source)
            | Self::Waiting(source)
            | Self::ToSweep(source)
            | Self::RecordCr(source)
            | Self::RetainFile(source)
            | Self::WithUnwantedFile(source)
            | Self::Transition { source, .. }
            | Self::Listen(source) => crate::pool::is_unavailable(source),
            Self::IdempotencyKeyReused
            | Self::TooManyUnfinished { .. }
            | Self::InvalidParameters { .. }
            | Self::Inconsistent { .. } => false,
        }
    }
}

/// Reads one report.
///
/// # Errors
/// [`Error::Get`], [`Error::InvalidParameters`], [`Error::Inconsistent`].
pub async fn get(pool: &PgPool, id: ReportId) -> Result<Option<Report>, Error> {
    row::report_query!("SELECT", "FROM reports WHERE id = $1", id.as_uuid())
        .fetch_optional(pool)
        .await
        .map_err(Error::Get)?
        .map(Report::try_from)
        .transpose()
}

/// The first `limit` reports in the queue for a place to run: dispatched, not begun, oldest first.
///
/// # Errors
/// [`Error::Waiting`].
pub async fn waiting(pool: &PgPool, limit: u32) -> Result<Vec<ReportId>, Error> {
    let ids = sqlx::query_scalar!(
        r#"
        SELECT id
        FROM reports
        WHERE state = 'Pending'
          AND dispatched_at IS NOT NULL
        ORDER BY created_at, id
        LIMIT $1
        "#,
        i64::from(limit),
    )
    .fetch_all(pool)
    .await
    .map_err(Error::Waiting)?;
    Ok(ids.into_iter().map(ReportId::new).collect())
}

/// Subscribes to reports that moved: relayed, dispatched, begun or ended. The payload is the report's id.
///
/// # Errors
/// [`Error::Listen`].
pub async fn listen(pool: &PgPool) -> Result<Notifications, Error> {
    Notifications::subscribe(pool, "reports")
        .await
        .map_err(Error::Listen)
}
