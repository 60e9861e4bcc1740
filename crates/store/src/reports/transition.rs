//! The guarded transitions: each statement names the states that its event belongs to, exactly as
//! [`domain::State::after`] has them. A test walks every pair through both.

use domain::{Artifact, Event, Failure, Report, ReportId, State};
use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgPool;

use super::{Error, row::report_query};

/// What became of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transition<T = Box<Report>> {
    /// The report took it, and this is how it is now.
    Applied(T),
    /// The report was further on already; nothing was written.
    Superseded(State),
    /// There is no such report.
    Unknown,
}

/// The consumer took the report's message: `Pending` and not dispatched → dispatched.
///
/// # Errors
/// [`Error::Transition`], [`Error::InvalidParameters`], [`Error::Inconsistent`].
pub async fn dispatch(pool: &PgPool, id: ReportId, now: Timestamp) -> Result<Transition, Error> {
    let row = report_query!(
        "UPDATE reports
        SET dispatched_at = $2,
            -- the message came through, so it was sent, also when the relay died before it could say so
            relayed_at = coalesce(relayed_at, $2),
            updated_at = $2
        WHERE id = $1
          AND state = 'Pending'
          AND dispatched_at IS NULL
        RETURNING",
        "",
        id.as_uuid(),
        now.to_sqlx() as _,
    )
    .fetch_optional(pool)
    .await
    .map_err(failed(Event::Dispatch))?;
    applied(pool, id, Event::Dispatch, row.map(Report::try_from)).await
}

/// An exporter begins: `Pending | Processing` → `Processing`, one attempt more.
///
/// # Errors
/// [`Error::Transition`]; [`Error::InvalidParameters`] and [`Error::Inconsistent`], after which the attempt
/// is counted and the report can only [`fail`].
pub async fn begin(pool: &PgPool, id: ReportId, now: Timestamp) -> Result<Transition, Error> {
    let row = report_query!(
        "UPDATE reports
        SET state = 'Processing',
            attempts = attempts + 1,
            started_at = coalesce(started_at, $2),
            updated_at = $2
        WHERE id = $1
          AND state IN ('Pending', 'Processing')
        RETURNING",
        "",
        id.as_uuid(),
        now.to_sqlx() as _,
    )
    .fetch_optional(pool)
    .await
    .map_err(failed(Event::Begin))?;
    applied(pool, id, Event::Begin, row.map(Report::try_from)).await
}

/// The file is committed and verified: `Processing` → `Completed`.
///
/// # Errors
/// [`Error::Transition`], [`Error::InvalidParameters`], [`Error::Inconsistent`].
pub async fn complete(
    pool: &PgPool,
    id: ReportId,
    artifact: &Artifact,
    now: Timestamp,
) -> Result<Transition, Error> {
    let count = |count: u64| {
        i64::try_from(count).map_err(|error| failed(Event::Complete)(sqlx::Error::Encode(error.into())))
    };
    let row = report_query!(
        "UPDATE reports
        SET state = 'Completed',
            artifact_container = $2,
            artifact_blob = $3,
            artifact_bytes = $4,
            artifact_rows = $5,
            artifact_sha256 = $6,
            artifact_content_type = $7,
            artifact_schema = $8,
            data_as_of = $9,
            finished_at = $10,
            updated_at = $10
        WHERE id = $1
          AND state = 'Processing'
        RETURNING",
        "",
        id.as_uuid(),
        artifact.container,
        artifact.blob.as_str(),
        count(artifact.bytes)?,
        count(artifact.rows)?,
        artifact.sha256.to_string(),
        artifact.content_type,
        artifact.schema,
        artifact.data_as_of.to_sqlx() as _,
        now.to_sqlx() as _,
    )
    .fetch_optional(pool)
    .await
    .map_err(failed(Event::Complete))?;
    applied(pool, id, Event::Complete, row.map(Report::try_from)).await
}

/// The report ends without a file: `Pending | Processing` → `Failed`. It does not read the parameters, so
/// that a report can be ended for the very reason that they are not valid.
///
/// # Errors
/// [`Error::Transition`].
pub async fn fail(
    pool: &PgPool,
    id: ReportId,
    failure: &Failure,
    now: Timestamp,
) -> Result<Transition<()>, Error> {
    let done = sqlx::query!(
        r#"
        UPDATE reports
        SET state = 'Failed',
            failure_reason = $2,
            failure_message = $3,
            finished_at = $4,
            updated_at = $4
        WHERE id = $1
          AND state IN ('Pending', 'Processing')
        "#,
        id.as_uuid(),
        failure.reason.as_str(),
        failure.message,
        now.to_sqlx() as _,
    )
    .execute(pool)
    .await
    .map_err(failed(Event::Fail))?;
    match done.rows_affected() {
        0 => refused(pool, id, Event::Fail).await,
        _ => Ok(Transition::Applied(())),
    }
}

fn failed(event: Event) -> impl Fn(sqlx::Error) -> Error {
    move |source| Error::Transition { event, source }
}

async fn applied(
    pool: &PgPool,
    id: ReportId,
    event: Event,
    row: Option<Result<Report, Error>>,
) -> Result<Transition, Error> {
    match row {
        Some(report) => Ok(Transition::Applied(Box::new(report?))),
        None => refused(pool, id, event).await,
    }
}

/// Why no row changed.
async fn refused<T>(pool: &PgPool, id: ReportId, event: Event) -> Result<Transition<T>, Error> {
    let state = sqlx::query_scalar!("SELECT state FROM reports WHERE id = $1", id.as_uuid())
        .fetch_optional(pool)
        .await
        .map_err(failed(event))?;
    match state {
        None => Ok(Transition::Unknown),
        Some(state) => match state.parse() {
            Ok(state) => Ok(Transition::Superseded(state)),
            Err(domain::UnknownState(_)) => Err(Error::Inconsistent { id, column: "state" }),
        },
    }
}
