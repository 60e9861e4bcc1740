//! Between the row of table `reports` and [`Report`].

use domain::{
    Artifact, AttemptNumber, BlobName, CustomResourceRef, Failure, Parameters, Progress, Report, ReportId,
    State,
};
use jiff_sqlx::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::Error;

/// `query_as!` for [`ReportRow`]: the columns stand between the two texts. They are named one by one,
/// because the plan of a `*` breaks in open connections when a migration adds a column.
macro_rules! report_query {
    ($before:literal, $after:literal $(, $argument:expr)* $(,)?) => {
        ::sqlx::query_as!(
            $crate::reports::row::ReportRow,
            $before
                + " id, requested_by, parameters, state, attempts,
                artifact_container, artifact_blob, artifact_bytes, artifact_rows, artifact_sha256,
                artifact_content_type, artifact_schema, data_as_of, failure_reason, failure_message,
                cr_namespace, cr_name, cr_uid, cr_deleted_at, traceparent, created_at, relayed_at,
                dispatched_at, started_at, finished_at, expires_at, updated_at "
                + $after
            $(, $argument)*
        )
    };
}
pub(crate) use report_query;

/// The row as it is stored.
#[derive(Debug)]
pub(crate) struct ReportRow {
    pub(crate) id: Uuid,
    pub(crate) requested_by: Option<Uuid>,
    pub(crate) parameters: Value,
    pub(crate) state: String,
    pub(crate) attempts: i32,
    pub(crate) artifact_container: Option<String>,
    pub(crate) artifact_blob: Option<String>,
    pub(crate) artifact_bytes: Option<i64>,
    pub(crate) artifact_rows: Option<i64>,
    pub(crate) artifact_sha256: Option<String>,
    pub(crate) artifact_content_type: Option<String>,
    pub(crate) artifact_schema: Option<String>,
    pub(crate) data_as_of: Option<Timestamp>,
    pub(crate) failure_reason: Option<String>,
    pub(crate) failure_message: Option<String>,
    pub(crate) cr_namespace: String,
    pub(crate) cr_name: String,
    pub(crate) cr_uid: Option<String>,
    pub(crate) cr_deleted_at: Option<Timestamp>,
    pub(crate) traceparent: Option<String>,
    pub(crate) created_at: Timestamp,
    pub(crate) relayed_at: Option<Timestamp>,
    pub(crate) dispatched_at: Option<Timestamp>,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) finished_at: Option<Timestamp>,
    pub(crate) expires_at: Timestamp,
    pub(crate) updated_at: Timestamp,
}

/// Names the column that should have been there in this state.
struct Columns(ReportId);

impl Columns {
    fn impossible(&self, column: &'static str) -> Error {
        Error::Inconsistent { id: self.0, column }
    }

    fn need<T>(&self, column: &'static str, value: Option<T>) -> Result<T, Error> {
        value.ok_or_else(|| self.impossible(column))
    }

    fn count(&self, column: &'static str, value: Option<i64>) -> Result<u64, Error> {
        u64::try_from(self.need(column, value)?).map_err(|_| self.impossible(column))
    }
}

impl TryFrom<ReportRow> for Report {
    type Error = Error;

    fn try_from(row: ReportRow) -> Result<Self, Error> {
        let id = ReportId::new(row.id);
        let columns = Columns(id);
        let attempts = u32::try_from(row.attempts).map_err(|_| columns.impossible("attempts"))?;
        let attempts = AttemptNumber::new(attempts);
        let state: State = row.state.parse().map_err(|_| columns.impossible("state"))?;
        let progress = match state {
            State::Pending => Progress::Pending {
                dispatched_at: row.dispatched_at.map(Timestamp::to_jiff),
            },
            State::Processing => Progress::Processing {
                attempt: attempts,
                started_at: columns.need("started_at", row.started_at)?.to_jiff(),
            },
            State::Completed => Progress::Completed {
                artifact: Artifact {
                    container: columns.need("artifact_container", row.artifact_container)?,
                    blob: BlobName::stored(columns.need("artifact_blob", row.artifact_blob)?),
                    bytes: columns.count("artifact_bytes", row.artifact_bytes)?,
                    rows: columns.count("artifact_rows", row.artifact_rows)?,
                    sha256: columns
                        .need("artifact_sha256", row.artifact_sha256)?
                        .parse()
                        .map_err(|_| columns.impossible("artifact_sha256"))?,
                    content_type: columns.need("artifact_content_type", row.artifact_content_type)?,
                    schema: columns.need("artifact_schema", row.artifact_schema)?,
                    data_as_of: columns.need("data_as_of", row.data_as_of)?.to_jiff(),
                },
                finished_at: columns.need("finished_at", row.finished_at)?.to_jiff(),
            },
            State::Failed => Progress::Failed {
                failure: Failure {
                    reason: columns
                        .need("failure_reason", row.failure_reason)?
                        .parse()
                        .map_err(|_| columns.impossible("failure_reason"))?,
                    message: columns.need("failure_message", row.failure_message)?,
                },
                finished_at: columns.need("finished_at", row.finished_at)?.to_jiff(),
            },
        };
        Ok(Self {
            id,
            requested_by: row.requested_by,
            parameters: Parameters::from_json(&row.parameters)
                .map_err(|source| Error::InvalidParameters { id, source })?,
            progress,
            attempts,
            dispatched_at: row.dispatched_at.map(Timestamp::to_jiff),
            started_at: row.started_at.map(Timestamp::to_jiff),
            relayed_at: row.relayed_at.map(Timestamp::to_jiff),
            custom_resource: row.cr_uid.map(|uid| CustomResourceRef {
                namespace: row.cr_namespace,
                name: row.cr_name,
                uid,
            }),
            custom_resource_deleted_at: row.cr_deleted_at.map(Timestamp::to_jiff),
            traceparent: row.traceparent,
            created_at: row.created_at.to_jiff(),
            expires_at: row.expires_at.to_jiff(),
            updated_at: row.updated_at.to_jiff(),
        })
    }
}
