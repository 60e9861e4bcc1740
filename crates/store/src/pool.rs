//! Connections.

use std::str::FromStr as _;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use tokio::sync::watch;
use url::Url;

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
    /// It names no user, and a token alone does not say which role is meant.
    #[error("the database URL names no user, which the login by tokens needs")]
    NoUser,
    /// It has a password, and the login is by tokens.
    #[error("the database URL has a password, but the login is by tokens; take the password out of it")]
    Password,
    /// A token would go over the network as it is.
    #[error(
        "the database URL says sslmode={0}, and a token must not go unencrypted: say verify-full, verify-ca or \
         require, or leave it out for verify-full"
    )]
    Unencrypted(String),
}

/// How a pool's connections log in.
#[derive(Clone, Debug)]
pub enum Login {
    /// By what the URL says.
    Url,
    /// By a password that changes, such as an access token. A connection is made with the newest; those that
    /// are open stay. None is sent until the first is there, so PostgreSQL refuses what connects before that:
    /// see [`Login::ready`].
    Tokens(watch::Receiver<Option<SecretString>>),
}

impl From<Option<watch::Receiver<Option<SecretString>>>> for Login {
    fn from(tokens: Option<watch::Receiver<Option<SecretString>>>) -> Self {
        tokens.map_or(Self::Url, Self::Tokens)
    }
}

impl Login {
    /// Waits until there is something to log in with.
    pub async fn ready(&self) {
        if let Self::Tokens(tokens) = self {
            // an error says that no token will ever come: the caller then hears it from PostgreSQL
            tokens.clone().wait_for(Option::is_some).await.ok();
        }
    }
}

/// A pool of at most `max` connections that makes the first one when it is needed: a database that is
/// away at the start is met by the first statement, like one that goes away later.
///
/// `application` is the name under which PostgreSQL shows the connections. To be called within a Tokio
/// runtime, which looks after idle connections and changing passwords.
///
/// # Errors
/// [`InvalidUrl`].
pub fn connect(url: &SecretString, login: &Login, max: u32, application: &str) -> Result<PgPool, InvalidUrl> {
    let options = options(url, login)?.application_name(application);
    Ok(connect_with(options, login, max))
}

/// The pool for options that came from [`options`].
pub(crate) fn connect_with(options: PgConnectOptions, login: &Login, max: u32) -> PgPool {
    let pool = PgPoolOptions::new()
        .max_connections(max)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_lazy_with(options);
    if let Login::Tokens(tokens) = login {
        let mut tokens = tokens.clone();
        set_password(&pool, &mut tokens);
        tokio::spawn(keep_password(pool.clone(), tokens));
    }
    pool
}

pub(crate) fn options(url: &SecretString, login: &Login) -> Result<PgConnectOptions, InvalidUrl> {
    let url = url.expose_secret();
    // sqlx itself takes any scheme for PostgreSQL's
    if !["postgres://", "postgresql://"]
        .iter()
        .any(|scheme| url.starts_with(scheme))
    {
        return Err(InvalidUrl::Scheme);
    }
    let options = PgConnectOptions::from_str(url).map_err(InvalidUrl::Malformed)?;
    match login {
        Login::Url => Ok(options),
        Login::Tokens(_) => for_tokens(options, url),
    }
}

/// What the URL says itself is looked at, since sqlx fills in from the environment what it does not say.
fn for_tokens(options: PgConnectOptions, url: &str) -> Result<PgConnectOptions, InvalidUrl> {
    let malformed = |error| InvalidUrl::Malformed(sqlx::Error::Configuration(Box::new(error)));
    let url = Url::parse(url).map_err(malformed)?;
    let says = |names: &[&str]| {
        let mut pairs = url.query_pairs();
        pairs.find_map(|(name, value)| names.contains(&&*name).then(|| value.into_owned()))
    };
    if url.password().is_some() || says(&["password"]).is_some() {
        return Err(InvalidUrl::Password);
    }
    if url.username().is_empty() && says(&["user"]).is_none() {
        return Err(InvalidUrl::NoUser);
    }
    match (says(&["sslmode", "ssl-mode"]), options.get_ssl_mode()) {
        (None, _) => Ok(options.ssl_mode(PgSslMode::VerifyFull)),
        (Some(_), PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull) => Ok(options),
        (Some(mode), _) => Err(InvalidUrl::Unencrypted(mode)),
    }
}

/// Until the pool is closed, or no token comes any more.
async fn keep_password(pool: PgPool, mut tokens: watch::Receiver<Option<SecretString>>) {
    let closed = pool.close_event();
    let keep = async {
        while tokens.changed().await.is_ok() {
            set_password(&pool, &mut tokens);
        }
    };
    tokio::select! {
        () = closed => {}
        () = keep => {}
    }
}

/// For the connections that are made from now on.
fn set_password(pool: &PgPool, tokens: &mut watch::Receiver<Option<SecretString>>) {
    if let Some(token) = tokens.borrow_and_update().as_ref() {
        let options = pool.connect_options().as_ref().clone();
        pool.set_connect_options(options.password(token.expose_secret()));
    }
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
        // (shutdown, starting up, cancelled by a time-out); and 28P01 invalid password, since passwords and
        // tokens are replaced while processes run
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            ["08", "25006", "28P01", "40", "53", "57"]
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

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn by_tokens(url: &str) -> Result<PgConnectOptions, InvalidUrl> {
        options(&url.into(), &Login::Tokens(watch::channel(None).1))
    }

    #[rstest]
    #[case::unsaid("", PgSslMode::VerifyFull)]
    #[case::full("?sslmode=verify-full", PgSslMode::VerifyFull)]
    #[case::authority("?sslmode=verify-ca", PgSslMode::VerifyCa)]
    #[case::unverified("?sslmode=require", PgSslMode::Require)]
    fn tokens_go_by_tls_alone(#[case] query: &str, #[case] mode: PgSslMode) {
        let options = by_tokens(&format!("postgres://api@db.example/reports{query}")).unwrap();

        assert_eq!(format!("{:?}", options.get_ssl_mode()), format!("{mode:?}"));
    }

    #[rstest]
    #[case::clear(
        "postgres://api@db.example/reports?sslmode=disable",
        "the database URL says sslmode=disable, and a token must not go unencrypted: say verify-full, verify-ca or \
         require, or leave it out for verify-full"
    )]
    #[case::perhaps_clear(
        "postgres://api@db.example/reports?sslmode=prefer",
        "the database URL says sslmode=prefer, and a token must not go unencrypted: say verify-full, verify-ca or \
         require, or leave it out for verify-full"
    )]
    #[case::password(
        "postgres://api:hunter2@db.example/reports",
        "the database URL has a password, but the login is by tokens; take the password out of it"
    )]
    #[case::password_in_the_query(
        "postgres://api@db.example/reports?password=hunter2",
        "the database URL has a password, but the login is by tokens; take the password out of it"
    )]
    #[case::no_user(
        "postgres://db.example/reports",
        "the database URL names no user, which the login by tokens needs"
    )]
    fn a_url_that_does_not_fit_tokens_is_refused(#[case] url: &str, #[case] message: &str) {
        assert_eq!(by_tokens(url).unwrap_err().to_string(), message);
    }
}
