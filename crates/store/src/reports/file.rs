//! Which reports' files may stay in blob storage.

use domain::ReportId;
use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgPool;
use uuid::Uuid;

use super::Error;

/// Notes that the file of a completed report stays when its custom resource goes, and says whether that was
/// news.
///
/// # Errors
/// [`Error::RetainFile`].
pub async fn retain_file(pool: &PgPool, id: ReportId, now: Timestamp) -> Result<bool, Error> {
    let done = sqlx::query!(
        r#"
        UPDATE reports
        SET file_retained = true,
            updated_at = $2
        WHERE id = $1
          AND state = 'Completed'
          AND NOT file_retained
        "#,
        id.as_uuid(),
        now.to_sqlx() as _,
    )
    .execute(pool)
    .await
    .map_err(Error::RetainFile)?;
    Ok(done.rows_affected() > 0)
}

/// Those of `ids` whose file nobody may want any more: the report failed, its custom resource was deleted
/// and with it the file, or it expired without ever having had one. An id that is in no row is not among
/// them: the file is somebody else's.
///
/// # Errors
/// [`Error::WithUnwantedFile`].
pub async fn with_unwanted_file(
    pool: &PgPool,
    ids: &[ReportId],
    now: Timestamp,
) -> Result<Vec<ReportId>, Error> {
    let ids: Vec<Uuid> = ids.iter().map(ReportId::as_uuid).collect();
    let unwanted = sqlx::query_scalar!(
        r#"
        SELECT id
        FROM reports
        WHERE id = ANY ($1)
          AND NOT file_retained
          AND (
              state = 'Failed'
              OR cr_deleted_at IS NOT NULL
              -- one that expired while its custom resource stands is ended through that
              OR (cr_uid IS NULL AND expires_at <= $2)
          )
        "#,
        &ids,
        now.to_sqlx() as _,
    )
    .fetch_all(pool)
    .await
    .map_err(Error::WithUnwantedFile)?;
    Ok(unwanted.into_iter().map(ReportId::new).collect())
}
