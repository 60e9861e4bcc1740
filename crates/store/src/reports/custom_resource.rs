//! What the row knows of its custom resource.

use domain::{CustomResourceRef, ReportId};
use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgPool;

use super::Error;

/// Notes which object stands for the report, and says whether that was news. A report that is unknown, or
/// whose object was deleted, takes no new one.
///
/// # Errors
/// [`Error::RecordCr`].
pub async fn record_cr(
    pool: &PgPool,
    id: ReportId,
    custom_resource: &CustomResourceRef,
    now: Timestamp,
) -> Result<bool, Error> {
    let done = sqlx::query!(
        r#"
        UPDATE reports
        SET cr_namespace = $2,
            cr_name = $3,
            cr_uid = $4,
            updated_at = $5
        WHERE id = $1
          AND cr_deleted_at IS NULL
          AND (cr_namespace, cr_name, cr_uid) IS DISTINCT FROM ($2, $3, $4)
        "#,
        id.as_uuid(),
        custom_resource.namespace,
        custom_resource.name,
        custom_resource.uid,
        now.to_sqlx() as _,
    )
    .execute(pool)
    .await
    .map_err(Error::RecordCr)?;
    Ok(done.rows_affected() > 0)
}

/// Notes that the object with this uid was deleted, so that the sweep does not make it again, and says
/// whether that was news. The deletion of an older object than the recorded one is passed over.
///
/// # Errors
/// [`Error::RecordCr`].
pub async fn record_cr_deleted(
    pool: &PgPool,
    id: ReportId,
    uid: &str,
    now: Timestamp,
) -> Result<bool, Error> {
    let done = sqlx::query!(
        r#"
        UPDATE reports
        SET cr_deleted_at = $3,
            cr_uid = $2,
            updated_at = $3
        WHERE id = $1
          AND cr_deleted_at IS NULL
          AND (cr_uid IS NULL OR cr_uid = $2)
        "#,
        id.as_uuid(),
        uid,
        now.to_sqlx() as _,
    )
    .execute(pool)
    .await
    .map_err(Error::RecordCr)?;
    Ok(done.rows_affected() > 0)
}

/// A report whose custom resource must be looked for: it was never seen, or the report has not ended and the
/// cluster may have been made anew. Only what is needed to look; [`super::get`] reads the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsettled {
    /// The report.
    pub id: ReportId,
    /// Where its custom resource is, or is to be.
    pub cr_namespace: String,
    /// What it is called.
    pub cr_name: String,
    /// Its uid, when it was ever seen.
    pub cr_uid: Option<String>,
}

/// One page of what the sweep has to look at: reports with an id after `after`, by id. The walk is over when
/// a page is shorter than `limit`. Expired reports, and those whose object was deleted, are not among them.
///
/// # Errors
/// [`Error::ToSweep`].
pub async fn to_sweep(
    pool: &PgPool,
    after: Option<ReportId>,
    limit: u32,
    now: Timestamp,
) -> Result<Vec<Unsettled>, Error> {
    let rows = sqlx::query!(
        r#"
        SELECT
            id,
            cr_namespace,
            cr_name,
            cr_uid
        FROM reports
        WHERE cr_deleted_at IS NULL
          AND (cr_uid IS NULL OR state IN ('Pending', 'Processing'))
          AND expires_at > $1
          AND ($2::uuid IS NULL OR id > $2)
        ORDER BY id
        LIMIT $3
        "#,
        now.to_sqlx() as _,
        after.map(|after| after.as_uuid()),
        i64::from(limit),
    )
    .fetch_all(pool)
    .await
    .map_err(Error::ToSweep)?;
    let unsettled = rows.into_iter().map(|row| Unsettled {
        id: ReportId::new(row.id),
        cr_namespace: row.cr_namespace,
        cr_name: row.cr_name,
        cr_uid: row.cr_uid,
    });
    Ok(unsettled.collect())
}
