//! The two doors by which a report comes in. Both write the row and its outbox message in one transaction,
//! so that neither can be there without the other.

use std::time::Duration;

use domain::{CustomResourceRef, ExportRequested, OutboxId, Parameters, Report, ReportId, Sha256};
use jiff::{SignedDuration, Timestamp};
use jiff_sqlx::ToSqlx as _;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{Error, row::report_query};

/// A report that was asked for over REST.
#[derive(Clone, Debug)]
pub struct NewReport {
    /// Its id, UUID version 7.
    pub id: ReportId,
    /// The id of its outbox message, UUID version 7.
    pub outbox_id: OutboxId,
    /// The user who asks.
    pub requested_by: Uuid,
    /// What is asked.
    pub parameters: Parameters,
    /// The request's `Idempotency-Key`, if it has one.
    pub idempotency: Option<Idempotency>,
    /// The W3C trace context of the request.
    pub traceparent: Option<String>,
    /// The namespace in which its custom resource is to be.
    pub cr_namespace: String,
    /// The name that its custom resource is to have.
    pub cr_name: String,
    /// How many unfinished reports this user may have, this one included.
    pub most_unfinished: u32,
    /// Now.
    pub now: Timestamp,
    /// When file and custom resource may go.
    pub expires_at: Timestamp,
}

/// What tells a retry from a new request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// The client's key: 1 to 255 characters, unique per requester.
    pub key: String,
    /// A sum over the request that came with it.
    pub fingerprint: Sha256,
}

/// The outcome of [`request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requested {
    /// The report is new.
    Created(Box<Report>),
    /// The same requester asked for the same with the same key before; this is that report, as it is now.
    Existing(Box<Report>),
}

/// Stores a requested report and its outbox message in one transaction. When it returns, the report will end
/// `Completed` or `Failed`, whatever breaks.
///
/// # Errors
/// [`Error::IdempotencyKeyReused`] when the key came with another request before;
/// [`Error::TooManyUnfinished`] when the user has to wait for an end first; [`Error::Request`], after which nothing is stored, unless it was the commit's answer that was lost: retry with the same key.
pub async fn request(pool: &PgPool, new: &NewReport) -> Result<Requested, Error> {
    request_with(pool, new, || ()).await
}

/// [`request`], calling `before_commit` when row and message are written and not yet committed: the fault
/// tests end the process there.
///
/// # Errors
/// As [`request`].
pub async fn request_with(
    pool: &PgPool,
    new: &NewReport,
    before_commit: impl FnOnce() + Send,
) -> Result<Requested, Error> {
    let mut transaction = pool.begin().await.map_err(Error::Request)?;
    let key = new
        .idempotency
        .as_ref()
        .map(|idempotency| idempotency.key.as_str());
    let fingerprint = new
        .idempotency
        .as_ref()
        .map(|idempotency| idempotency.fingerprint.to_string());
    let parameters = to_json(&new.parameters).map_err(Error::Request)?;
    // One request of a user after the other, over all replicas: the limit is counted on the table.
    sqlx::query!(
        r#"SELECT pg_advisory_xact_lock(hashtextextended($1::uuid::text, 0)) IS NULL AS "locked!""#,
        new.requested_by,
    )
    .fetch_one(&mut *transaction)
    .await
    .map_err(Error::Request)?;
    // Of fifty requests with one key, one inserts; the others wait here for its commit and then see its row.
    let created = report_query!(
        "INSERT INTO reports (
            id, requested_by, parameters, idempotency_key, idempotency_fingerprint, traceparent,
            cr_namespace, cr_name, created_at, updated_at, expires_at
        )
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $10)
        ON CONFLICT (requested_by, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
        RETURNING",
        "",
        new.id.as_uuid(),
        new.requested_by,
        parameters,
        key,
        fingerprint,
        new.traceparent,
        new.cr_namespace,
        new.cr_name,
        new.now.to_sqlx() as _,
        new.expires_at.to_sqlx() as _,
    )
    .fetch_optional(&mut *transaction)
    .await
    .map_err(Error::Request)?;
    if let Some(row) = created {
        let report = Report::try_from(row)?;
        keep_within_limit(&mut transaction, new).await?;
        enqueue(&mut transaction, new.outbox_id, &report)
            .await
            .map_err(Error::Request)?;
        before_commit();
        transaction.commit().await.map_err(Error::Request)?;
        return Ok(Requested::Created(Box::new(report)));
    }
    let first_fingerprint = sqlx::query_scalar!(
        r#"
        SELECT idempotency_fingerprint AS "fingerprint!"
        FROM reports
        WHERE requested_by = $1
          AND idempotency_key = $2
        "#,
        new.requested_by,
        key,
    )
    .fetch_one(&mut *transaction)
    .await
    .map_err(Error::Request)?;
    if Some(first_fingerprint) != fingerprint {
        return Err(Error::IdempotencyKeyReused);
    }
    let existing = report_query!(
        "SELECT",
        "FROM reports WHERE requested_by = $1 AND idempotency_key = $2",
        new.requested_by,
        key,
    )
    .fetch_one(&mut *transaction)
    .await
    .map_err(Error::Request)?;
    Ok(Requested::Existing(Box::new(existing.try_into()?)))
}

/// The pause until a place is likely, when no report has ever been completed.
const UNKNOWN_DURATION: Duration = Duration::from_secs(5);
/// The longest pause that is advised: an estimate should not keep anybody away for long.
const LONGEST_ADVICE: Duration = Duration::from_secs(300);

/// Refuses the report that was just inserted when it is one too many.
async fn keep_within_limit(connection: &mut PgConnection, new: &NewReport) -> Result<(), Error> {
    let own = sqlx::query!(
        r#"
        SELECT count(*) AS "unfinished!", min(created_at) AS "oldest!"
        FROM reports
        WHERE requested_by = $1
          AND state IN ('Pending', 'Processing')
        "#,
        new.requested_by,
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(Error::Request)?;
    if own.unfinished <= i64::from(new.most_unfinished) {
        return Ok(());
    }
    let typical = sqlx::query_scalar!(
        r#"
        SELECT (extract(epoch FROM avg(finished_at - created_at)) * 1000)::bigint AS milliseconds
        FROM (
            SELECT created_at, finished_at
            FROM reports
            WHERE state = 'Completed'
            ORDER BY finished_at DESC
            LIMIT 20
        ) AS latest
        "#,
    )
    .fetch_one(connection)
    .await
    .map_err(Error::Request)?;
    Err(Error::TooManyUnfinished {
        limit: new.most_unfinished,
        retry_after: until_a_place(own.oldest.to_jiff(), typical, new.now),
    })
}

/// How long until the user's oldest report ends, if it takes as long as the latest ones did on average.
fn until_a_place(oldest: Timestamp, typical_milliseconds: Option<i64>, now: Timestamp) -> Duration {
    let Some(typical) = typical_milliseconds else {
        return UNKNOWN_DURATION;
    };
    let left = SignedDuration::from_millis(typical).saturating_sub(now.duration_since(oldest));
    Duration::try_from(left)
        .unwrap_or_default()
        .clamp(Duration::from_secs(1), LONGEST_ADVICE)
}

/// A report that came as a custom resource.
#[derive(Clone, Debug)]
pub struct Adoption {
    /// Its id: the custom resource's uid.
    pub id: ReportId,
    /// The id of its outbox message, UUID version 7.
    pub outbox_id: OutboxId,
    /// What is asked.
    pub parameters: Parameters,
    /// The custom resource.
    pub custom_resource: CustomResourceRef,
    /// A W3C trace context to go on with.
    pub traceparent: Option<String>,
    /// Now.
    pub now: Timestamp,
    /// When file and custom resource may go.
    pub expires_at: Timestamp,
}

/// Stores the report of a custom resource that has none yet, with its outbox message, in one transaction.
/// Doing it again returns the report as it is, and stores nothing.
///
/// # Errors
/// [`Error::Adopt`].
pub async fn adopt(pool: &PgPool, new: &Adoption) -> Result<Report, Error> {
    let mut transaction = pool.begin().await.map_err(Error::Adopt)?;
    let parameters = to_json(&new.parameters).map_err(Error::Adopt)?;
    let created = report_query!(
        "INSERT INTO reports (
            id, parameters, traceparent, cr_namespace, cr_name, cr_uid, created_at, updated_at, expires_at
        )
        VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8)
        ON CONFLICT (id) DO NOTHING
        RETURNING",
        "",
        new.id.as_uuid(),
        parameters,
        new.traceparent,
        new.custom_resource.namespace,
        new.custom_resource.name,
        new.custom_resource.uid,
        new.now.to_sqlx() as _,
        new.expires_at.to_sqlx() as _,
    )
    .fetch_optional(&mut *transaction)
    .await
    .map_err(Error::Adopt)?;
    if let Some(row) = created {
        let report = Report::try_from(row)?;
        enqueue(&mut transaction, new.outbox_id, &report)
            .await
            .map_err(Error::Adopt)?;
        transaction.commit().await.map_err(Error::Adopt)?;
        return Ok(report);
    }
    report_query!("SELECT", "FROM reports WHERE id = $1", new.id.as_uuid())
        .fetch_one(&mut *transaction)
        .await
        .map_err(Error::Adopt)?
        .try_into()
}

async fn enqueue(connection: &mut PgConnection, id: OutboxId, report: &Report) -> Result<(), sqlx::Error> {
    let event = ExportRequested::new(report.id, report.parameters.clone(), report.created_at);
    sqlx::query!(
        r#"
        INSERT INTO outbox_messages (
            id, aggregatetype, aggregateid, type, payload, traceparent, created_at, available_at
        )
        VALUES ($1, $2, $3, $4, $5, $6, $7, $7)
        "#,
        id.as_uuid(),
        ExportRequested::AGGREGATE_TYPE,
        report.id.as_uuid(),
        ExportRequested::TYPE,
        to_json(&event)?,
        report.traceparent,
        report.created_at.to_sqlx() as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}

fn to_json(value: &impl serde::Serialize) -> Result<serde_json::Value, sqlx::Error> {
    serde_json::to_value(value).map_err(|error| sqlx::Error::Encode(error.into()))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::nothing_is_known(None, 3, 5)]
    #[case::the_rest_of_a_typical_report(Some(60_000), 45, 15)]
    #[case::overdue(Some(60_000), 90, 1)]
    #[case::never_for_long(Some(3_600_000), 0, 300)]
    fn the_advised_pause_is_when_the_oldest_report_should_end(
        #[case] typical_milliseconds: Option<i64>,
        #[case] seconds_old: i64,
        #[case] seconds: u64,
    ) {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let oldest = now - SignedDuration::from_secs(seconds_old);

        let pause = until_a_place(oldest, typical_milliseconds, now);

        assert_eq!(pause, Duration::from_secs(seconds));
    }
}
