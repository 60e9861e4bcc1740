//! The schema, compiled in from `migrations/`.

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{Connection as _, PgConnection, PgPool};

/// The migrations' own books, so that they never meet the `_sqlx_migrations` of the music-albums service.
const TABLE: &str = "public.popularity_reports_migrations";

/// Why the schema is not up to date.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection to the database.
    #[error("failed to connect for the migrations")]
    Connect(#[source] sqlx::Error),
    /// A migration failed, or differs from the one that was applied.
    #[error("failed to apply the migrations")]
    Apply(#[source] MigrateError),
    /// The catalogue grants failed.
    #[error("failed to grant the catalogue's tables to the exporter's role")]
    Grant(#[source] sqlx::Error),
}

/// Brings the schema up to date and lets the exporter's role read the catalogue.
///
/// Safe to run twice and from any number of processes at once: an advisory lock makes them take turns.
/// Returns the catalogue's tables that the exporter still can not read, because they are missing or because
/// the migrating role may not grant them; also logged as a warning. They may come later: run it again.
///
/// # Errors
/// [`Error`]; what was applied before the failure stays applied.
pub async fn run(pool: &PgPool) -> Result<Vec<String>, Error> {
    // A connection of its own, closed at the end: after a failure the migrator leaves its lock, which belongs
    // to the session, and a pooled connection would carry it on.
    let mut connection = pool.acquire().await.map_err(Error::Connect)?.detach();
    let outcome = bring_up_to_date(&mut connection).await;
    if let Err(error) = connection.close().await {
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "closing the migrations' connection failed"
        );
    }
    outcome
}

async fn bring_up_to_date(connection: &mut PgConnection) -> Result<Vec<String>, Error> {
    migrator()
        .run_direct(None, connection, false)
        .await
        .map_err(Error::Apply)?;
    let unreadable: Vec<String> = sqlx::query_scalar!(
        r#"SELECT table_name AS "table_name!" FROM public.popularity_reports_grant_catalogue() AS table_name"#
    )
    .fetch_all(connection)
    .await
    .map_err(Error::Grant)?;
    if !unreadable.is_empty() {
        tracing::warn!(
            tables = unreadable.join(", "),
            "role popularity_reports_exporter cannot read these tables of the catalogue in this database yet; \
             run the migrations again when they are there, or let their owner GRANT SELECT on them"
        );
    }
    Ok(unreadable)
}

/// The version of the newest migration that this program knows.
pub fn version() -> i64 {
    let migrator = migrator();
    migrator
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or_default()
}

fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("../../migrations");
    migrator.dangerous_set_table_name(TABLE);
    // During a roll-out, and after a roll-back, an older binary meets migrations that it does not know. They
    // only ever add (migrations/README.md), so it can go on.
    migrator.set_ignore_missing(true);
    migrator
}
