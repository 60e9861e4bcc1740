//! The transactional outbox: claimed by the relay, marked when the broker has accepted, pruned later.

use domain::{OutboxId, ReportId};
use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::{PgPool, Postgres, Transaction};

use crate::Notifications;

/// Which statement on the outbox failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// See [`claim`].
    #[error("failed to claim outbox messages")]
    Claim(#[source] sqlx::Error),
    /// See [`Claim::mark_processed`].
    #[error("failed to mark outbox messages as processed")]
    MarkProcessed(#[source] sqlx::Error),
    /// See [`Claim::mark_failed`].
    #[error("failed to put outbox messages off")]
    MarkFailed(#[source] sqlx::Error),
    /// See [`Claim::commit`].
    #[error("failed to commit the marks on outbox messages")]
    Commit(#[source] sqlx::Error),
    /// See [`Claim::release`].
    #[error("failed to give back the claimed outbox messages")]
    Release(#[source] sqlx::Error),
    /// See [`prune`].
    #[error("failed to prune processed outbox messages")]
    Prune(#[source] sqlx::Error),
    /// See [`backlog`].
    #[error("failed to read the outbox backlog")]
    Backlog(#[source] sqlx::Error),
    /// See [`listen`].
    #[error("failed to listen for outbox messages")]
    Listen(#[source] sqlx::Error),
}

impl Error {
    /// Whether the database is away, so that the same call can be expected to succeed later.
    pub fn is_unavailable(&self) -> bool {
        let (Self::Claim(source)
        | Self::MarkProcessed(source)
        | Self::MarkFailed(source)
        | Self::Commit(source)
        | Self::Release(source)
        | Self::Prune(source)
        | Self::Backlog(source)
        | Self::Listen(source)) = self;
        crate::pool::is_unavailable(source)
    }
}

/// A message that waits to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxMessage {
    /// The message's id; send it as `MessageId`, so that the broker knows it again.
    pub id: OutboxId,
    /// The report that it is about.
    pub report_id: ReportId,
    /// The event's name; send it as the subject.
    pub event_type: String,
    /// The body, JSON text.
    pub payload: String,
    /// The W3C trace context of the request.
    pub traceparent: Option<String>,
    /// How often sending it has failed so far.
    pub attempts: u32,
    /// When it was written.
    pub created_at: Timestamp,
}

/// Messages that are this relay's alone until the claim ends. The claim is a transaction: dropping it, or
/// dying with it, gives all of them back as they were.
#[derive(Debug)]
pub struct Claim {
    transaction: Transaction<'static, Postgres>,
    messages: Vec<OutboxMessage>,
}

/// Claims up to `limit` messages that are due, oldest first, passing over those that another relay holds.
///
/// # Errors
/// [`Error::Claim`].
pub async fn claim(pool: &PgPool, limit: u32, now: Timestamp) -> Result<Claim, Error> {
    let mut transaction = pool.begin().await.map_err(Error::Claim)?;
    let messages = sqlx::query!(
        r#"
        SELECT
            id,
            aggregateid,
            type AS event_type,
            payload::text AS "payload!",
            traceparent,
            attempts,
            created_at
        FROM outbox_messages
        WHERE processed_at IS NULL
          AND available_at <= $1
        ORDER BY available_at, id
        LIMIT $2
        -- Locked until the claim ends, and what another relay has locked is not waited for.
        FOR UPDATE SKIP LOCKED
        "#,
        now.to_sqlx() as _,
        i64::from(limit),
    )
    .fetch_all(&mut *transaction)
    .await
    .map_err(Error::Claim)?
    .into_iter()
    .map(|row| OutboxMessage {
        id: OutboxId::new(row.id),
        report_id: ReportId::new(row.aggregateid),
        event_type: row.event_type,
        payload: row.payload,
        traceparent: row.traceparent,
        // a CHECK keeps it from being negative
        attempts: row.attempts.unsigned_abs(),
        created_at: row.created_at.to_jiff(),
    })
    .collect();
    Ok(Claim {
        transaction,
        messages,
    })
}

impl Claim {
    /// What was claimed, oldest first.
    pub fn messages(&self) -> &[OutboxMessage] {
        &self.messages
    }

    /// Notes that the broker has accepted these messages, here and on their reports.
    ///
    /// # Errors
    /// [`Error::MarkProcessed`]; the claim can then only be dropped, and the messages are sent again.
    pub async fn mark_processed(&mut self, ids: &[OutboxId], now: Timestamp) -> Result<(), Error> {
        let ids: Vec<_> = ids.iter().map(OutboxId::as_uuid).collect();
        sqlx::query!(
            r#"
            WITH sent AS (
                UPDATE outbox_messages
                SET processed_at = $2,
                    last_error = NULL
                WHERE id = ANY ($1)
                  AND processed_at IS NULL
                RETURNING aggregateid
            )
            -- Kept on the report as well, because processed messages are pruned. The consumer may have been
            -- faster than this mark; then there is nothing to write.
            UPDATE reports
            SET relayed_at = $2,
                updated_at = $2
            FROM sent
            WHERE reports.id = sent.aggregateid
              AND reports.relayed_at IS NULL
            "#,
            &ids,
            now.to_sqlx() as _,
        )
        .execute(&mut *self.transaction)
        .await
        .map_err(Error::MarkProcessed)?;
        Ok(())
    }

    /// Notes that sending these messages failed, why, and when to try again.
    ///
    /// # Errors
    /// [`Error::MarkFailed`]; the claim can then only be dropped, and the messages are due at once.
    pub async fn mark_failed(
        &mut self,
        ids: &[OutboxId],
        error: &str,
        available_at: Timestamp,
    ) -> Result<(), Error> {
        let ids: Vec<_> = ids.iter().map(OutboxId::as_uuid).collect();
        sqlx::query!(
            r#"
            UPDATE outbox_messages
            SET attempts = attempts + 1,
                last_error = $2,
                available_at = $3
            WHERE id = ANY ($1)
              AND processed_at IS NULL
            "#,
            &ids,
            error,
            available_at.to_sqlx() as _,
        )
        .execute(&mut *self.transaction)
        .await
        .map_err(Error::MarkFailed)?;
        Ok(())
    }

    /// Makes the marks permanent and gives back what was not marked.
    ///
    /// # Errors
    /// [`Error::Commit`]; the messages may then be sent again, with the same ids.
    pub async fn commit(self) -> Result<(), Error> {
        self.transaction.commit().await.map_err(Error::Commit)
    }

    /// Gives everything back as it was, and returns when that is done; dropping the claim does the same a
    /// moment later.
    ///
    /// # Errors
    /// [`Error::Release`]; PostgreSQL then gives it back when it notices the lost connection.
    pub async fn release(self) -> Result<(), Error> {
        self.transaction.rollback().await.map_err(Error::Release)
    }
}

/// Removes up to `limit` messages that were processed before `older_than`, and says how many there were.
///
/// # Errors
/// [`Error::Prune`].
pub async fn prune(pool: &PgPool, older_than: Timestamp, limit: u32) -> Result<u64, Error> {
    let done = sqlx::query!(
        r#"
        DELETE FROM outbox_messages
        WHERE id IN (
            SELECT id
            FROM outbox_messages
            WHERE processed_at < $1
            ORDER BY processed_at
            LIMIT $2
            -- Two pruners share the work instead of waiting for each other.
            FOR UPDATE SKIP LOCKED
        )
        "#,
        older_than.to_sqlx() as _,
        i64::from(limit),
    )
    .execute(pool)
    .await
    .map_err(Error::Prune)?;
    Ok(done.rows_affected())
}

/// What waits to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// How many messages.
    pub count: u64,
    /// When the oldest of them was written.
    pub oldest: Option<Timestamp>,
}

/// Counts what waits to be sent, those that were put off included.
///
/// # Errors
/// [`Error::Backlog`].
pub async fn backlog(pool: &PgPool) -> Result<Backlog, Error> {
    let row = sqlx::query!(
        r#"
        SELECT
            count(*) AS "count!",
            min(created_at) AS oldest
        FROM outbox_messages
        WHERE processed_at IS NULL
        "#,
    )
    .fetch_one(pool)
    .await
    .map_err(Error::Backlog)?;
    Ok(Backlog {
        count: row.count.unsigned_abs(),
        oldest: row.oldest.map(|oldest| oldest.to_jiff()),
    })
}

/// Subscribes to the writing of messages. The payload is empty: claim, and see.
///
/// # Errors
/// [`Error::Listen`].
pub async fn listen(pool: &PgPool) -> Result<Notifications, Error> {
    Notifications::subscribe(pool, "outbox_messages")
        .await
        .map_err(Error::Listen)
}
