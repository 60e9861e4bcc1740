//! Connections.

use std::str::FromStr as _;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

/// How long a caller waits for a connection before it is told that the database is away: longer than
/// making one takes, shorter than a client's patience with a request.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// The database URL can not be used. No text here holds the URL, which may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum InvalidUrl {
    /// It is a URL for something else.
    #[error("the database URL does not begin with postgres:// or postgresql://")]
    Scheme,
    /// It is no URL, or an option in it is unknown or out of range.
    #[error("the database URL is not of the form postgres://user:password@host:port/database")]
    Malformed(#[source] sqlx::Error),
}

/// A pool of at most `max` connections that makes the first one when it is needed: a database that is
/// away at the start is met by the first statement, like one that goes away later.
///
/// `application` is the name under which PostgreSQL shows the connections. To be called within a Tokio
/// runtime, which looks after idle connections.
///
/// # Errors
/// [`InvalidUrl`].
pub fn connect(url: &SecretString, max: u32, application: &str) -> Result<PgPool, InvalidUrl> {
    let url = url.expose_secret();
    // sqlx itself takes any scheme for PostgreSQL's
    if !["postgres://", "postgresql://"]
        .iter()
        .any(|scheme| url.starts_with(scheme))
    {
        return Err(InvalidUrl::Scheme);
    }
    let options = PgConnectOptions::from_str(url)
        .map_err(InvalidUrl::Malformed)?
        .application_name(application);
    Ok(PgPoolOptions::new()
        .max_connections(max)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_lazy_with(options))
}

/// Whether the failure is that of a server that is away, starting, stopping or out of connections, so that
/// the same statement can be expected to succeed later.
pub fn is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        // https://www.postgresql.org/docs/current/errcodes-appendix.html: 08 connection exception,
        // 25006 read-only transaction (a server that a fail-over has made a replica), 40 transaction rollback
        // (serialisation, deadlock, recovery conflict), 53 insufficient resources, 57 operator intervention
        // (shutdown, starting up, cancelled by a time-out)
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            ["08", "25006", "40", "53", "57"]
                .iter()
                .any(|class| code.starts_with(class))
        }),
        _ => false,
    }
}

/// Asks the server for a sign of life.
///
/// # Errors
/// When there is none.
pub async fn ping(pool: &PgPool) -> Result<(), sqlx::Error> {
    sqlx::Connection::ping(&mut *pool.acquire().await?).await
}
