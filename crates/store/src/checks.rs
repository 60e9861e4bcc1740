//! Whether the database is as a program needs it: reachable, migrated, granted.

mod needs;

use checks::Check;
use jiff::Timestamp;
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgPool, Postgres};

pub use needs::{Need, Program};

use crate::migrations;

/// Names of the checks here.
pub mod names {
    /// A connection as the program's login.
    pub const DATABASE: &str = "postgresql";
    /// The tables, by the version of the migrations.
    pub const SCHEMA: &str = "postgresql schema";
    /// The login's rights on them.
    pub const GRANTS: &str = "postgresql grants";
    /// The music-albums tables, and the right to read them.
    pub const CATALOGUE: &str = "catalogue";
    /// The server's clock.
    pub const CLOCK: &str = "clock of postgresql";
}

/// The six tables of the music-albums service that a report is made from.
const CATALOGUE: [&str; 6] = [
    "public.music_albums",
    "public.genres",
    "public.music_album_genres",
    "public.artists",
    "public.album_artists",
    "public.ratings",
];
/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
const UNDEFINED_FUNCTION: &str = "42883";
const INSUFFICIENT_PRIVILEGE: &str = "42501";
const UNKNOWN_DATABASE: &str = "3D000";
const INVALID_AUTHORIZATION: [&str; 2] = ["28000", "28P01"];

/// Looks at the reports' database with the eyes of the pool's login, for what `program` needs.
pub async fn reports(pool: &PgPool, program: Program) -> Vec<Check> {
    let (mut connection, database) = match connect(pool, names::DATABASE).await {
        Ok(connected) => connected,
        Err(check) => return without(check, &[names::SCHEMA, names::GRANTS]),
    };
    let schema = schema(&mut connection).await;
    let grants = if schema.failed() {
        Check::not_checked(names::GRANTS, "the schema comes first")
    } else {
        grants(&mut connection, &login(pool), program).await
    };
    vec![database, schema, grants]
}

/// Looks whether the pool's login can read the catalogue.
pub async fn catalogue(pool: &PgPool) -> Check {
    let mut connection = match connect(pool, names::CATALOGUE).await {
        Ok((connection, _)) => connection,
        Err(check) => return check,
    };
    let tables: Vec<String> = CATALOGUE.iter().map(|table| (*table).to_owned()).collect();
    let found = sqlx::query!(
        r#"
        SELECT
            relation AS "relation!",
            to_regclass(relation) IS NOT NULL AS "is_there!",
            coalesce(has_table_privilege(to_regclass(relation)::oid, 'SELECT'), false) AS "is_readable!"
        FROM unnest($1::text[]) AS relation
        "#,
        &tables
    )
    .fetch_all(&mut *connection)
    .await;
    let found = match found {
        Ok(found) => found,
        Err(error) => return failed(pool, names::CATALOGUE, &error),
    };
    let absent: Vec<&str> = found
        .iter()
        .filter(|table| !table.is_there)
        .map(|table| table.relation.as_str())
        .collect();
    if !absent.is_empty() {
        return Check::missing(
            names::CATALOGUE,
            format!(
                "no {} in database {}",
                list("table", &absent),
                database_of(&pool.connect_options())
            ),
            "the music-albums service makes them: let CATALOG_DATABASE_URL name its database or a replica of it",
        );
    }
    let closed: Vec<&str> = found
        .iter()
        .filter(|table| !table.is_readable)
        .map(|table| table.relation.as_str())
        .collect();
    if !closed.is_empty() {
        let login = login(pool);
        return Check::missing(
            names::CATALOGUE,
            format!("login {login} may not SELECT from {}", list("table", &closed)),
            format!(
                "as the owner of those tables: GRANT SELECT ON {} TO {login};",
                closed.join(", ")
            ),
        );
    }
    Check::ok(names::CATALOGUE, format!("{} tables can be read", found.len()))
}

/// Compares the server's clock with ours.
pub async fn clock(pool: &PgPool) -> Check {
    let mut connection = match connect(pool, names::CLOCK).await {
        Ok((connection, _)) => connection,
        Err(_) => return Check::not_checked(names::CLOCK, "PostgreSQL cannot be asked"),
    };
    let sent = Timestamp::now();
    let theirs = sqlx::query_scalar!(r#"SELECT clock_timestamp() AS "now!: jiff_sqlx::Timestamp""#)
        .fetch_one(&mut *connection)
        .await;
    match theirs {
        Ok(theirs) => checks::clock(
            names::CLOCK,
            "PostgreSQL",
            theirs.to_jiff(),
            sent,
            Timestamp::now(),
        ),
        Err(error) => failed(pool, names::CLOCK, &error),
    }
}

async fn connect(pool: &PgPool, name: &'static str) -> Result<(PoolConnection<Postgres>, Check), Check> {
    match pool.acquire().await {
        Ok(connection) => {
            let options = pool.connect_options();
            let seen = format!(
                "{}:{} database {} as {}",
                options.get_host(),
                options.get_port(),
                database_of(&options),
                options.get_username()
            );
            Ok((connection, Check::ok(name, seen)))
        }
        // the pool tries again until its time is over, and then only says so: ask for the reason itself
        Err(sqlx::Error::PoolTimedOut) => match pool.connect_options().connect().await {
            Ok(connection) => {
                drop(connection.close().await);
                Err(Check::unavailable(
                    name,
                    "all connections of the pool are in use",
                    "raise REPORTS_DATABASE_MAX_CONNECTIONS",
                ))
            }
            Err(error) => Err(failed(pool, name, &error)),
        },
        Err(error) => Err(failed(pool, name, &error)),
    }
}

/// The schema is as this program's migrations make it, or newer: those only ever add.
async fn schema(connection: &mut PoolConnection<Postgres>) -> Check {
    const REMEDY: &str = "with the URL of an owner's login: operator migrate (in a cluster: helm upgrade, whose hook Job runs it)";
    let wanted = migrations::version();
    let version = sqlx::query_scalar!("SELECT public.popularity_reports_schema_version()")
        .fetch_one(&mut **connection)
        .await;
    match version {
        Ok(Some(version)) if version >= wanted => Check::ok(names::SCHEMA, format!("at migration {version}")),
        Ok(version) => Check::missing(
            names::SCHEMA,
            format!(
                "the tables are at migration {}, this program needs {wanted}",
                version.unwrap_or_default()
            ),
            REMEDY,
        ),
        Err(error) if code(&error).as_deref() == Some(UNDEFINED_FUNCTION) => Check::missing(
            names::SCHEMA,
            format!(
                "table public.reports is missing or older than migration {wanted}, which this program needs"
            ),
            REMEDY,
        ),
        Err(error) => Check::unavailable(names::SCHEMA, words(&error), "see PostgreSQL's log"),
    }
}

async fn grants(connection: &mut PoolConnection<Postgres>, login: &str, program: Program) -> Check {
    let role = program.role();
    let needs = program.needs();
    let (mut relations, mut privileges, mut columns) = (Vec::new(), Vec::new(), Vec::new());
    for need in needs {
        for column in need.columns_or_table() {
            relations.push(need.relation.to_owned());
            privileges.push(need.privilege.to_owned());
            columns.push((*column).to_owned());
        }
    }
    let lacking = sqlx::query!(
        r#"
        SELECT needed.relation AS "relation!", needed.privilege AS "privilege!", needed.field AS "field!"
        FROM unnest($1::text[], $2::text[], $3::text[]) AS needed (relation, privilege, field)
        WHERE NOT coalesce(
            CASE needed.field
                WHEN '' THEN has_table_privilege(to_regclass(needed.relation)::oid, needed.privilege)
                ELSE has_column_privilege(to_regclass(needed.relation)::oid, needed.field, needed.privilege)
            END,
            false
        )
        "#,
        &relations,
        &privileges,
        &columns
    )
    .fetch_all(&mut **connection)
    .await;
    let lacking = match lacking {
        Ok(lacking) => lacking,
        Err(error) => return Check::unavailable(names::GRANTS, words(&error), "see PostgreSQL's log"),
    };
    if lacking.is_empty() {
        return Check::ok(names::GRANTS, format!("{login} may do what {role} needs"));
    }
    let member = sqlx::query_scalar!(
        r#"SELECT coalesce(pg_has_role(to_regrole($1)::oid, 'USAGE'), false) AS "member!""#,
        role
    )
    .fetch_one(&mut **connection)
    .await;
    match member {
        Ok(false) => Check::missing(
            names::GRANTS,
            format!("login {login} is no member of role {role}"),
            format!("GRANT {role} TO {login};"),
        ),
        Ok(true) => {
            let lacks = |need: &&Need| {
                lacking
                    .iter()
                    .any(|row| row.relation == need.relation && row.privilege == need.privilege)
            };
            let lacks: Vec<&Need> = needs.iter().filter(lacks).collect();
            let what = lacks
                .iter()
                .map(|need| format!("{} on {}", need.privilege, need.relation));
            let remedy = lacks.iter().map(|need| format!("GRANT {need} TO {role};"));
            Check::missing(
                names::GRANTS,
                format!("role {role} lacks {}", what.collect::<Vec<_>>().join(", ")),
                remedy.collect::<Vec<_>>().join(" "),
            )
        }
        Err(error) => Check::unavailable(names::GRANTS, words(&error), "see PostgreSQL's log"),
    }
}

/// What a failed connection or statement says about what is missing.
fn failed(pool: &PgPool, name: &'static str, error: &sqlx::Error) -> Check {
    let options = pool.connect_options();
    let (login, database) = (options.get_username(), database_of(&options));
    let server = format!("{}:{}", options.get_host(), options.get_port());
    match code(error).as_deref() {
        Some(UNKNOWN_DATABASE) => Check::missing(
            name,
            format!("server {server} has no database {database}"),
            format!("CREATE DATABASE {database};"),
        ),
        Some(code) if INVALID_AUTHORIZATION.contains(&code) => Check::missing(
            name,
            format!("server {server} refuses login {login}: {}", words(error)),
            format!(
                "CREATE ROLE {login} LOGIN PASSWORD '<password>'; or ALTER ROLE {login} PASSWORD '<password>'; \
                 and the same in the Secret's URL"
            ),
        ),
        Some(INSUFFICIENT_PRIVILEGE) => Check::missing(
            name,
            format!("login {login} may not connect to database {database}"),
            format!("GRANT CONNECT ON DATABASE {database} TO {login};"),
        ),
        _ => Check::unavailable(
            name,
            format!("server {server} does not answer: {}", words(error)),
            format!(
                "see that it runs and that no NetworkPolicy is between: pg_isready -h {} -p {}",
                options.get_host(),
                options.get_port()
            ),
        ),
    }
}

fn without(check: Check, rest: &[&'static str]) -> Vec<Check> {
    let rest = rest
        .iter()
        .map(|name| Check::not_checked(name, "PostgreSQL cannot be asked"));
    std::iter::once(check).chain(rest).collect()
}

fn code(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

/// The error in one line. PostgreSQL's texts name roles, databases and tables, and hold no password.
fn words(error: &sqlx::Error) -> String {
    let text = error
        .as_database_error()
        .map_or_else(|| error.to_string(), |error| error.message().to_owned());
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn login(pool: &PgPool) -> String {
    pool.connect_options().get_username().to_owned()
}

fn database_of(options: &PgConnectOptions) -> String {
    // the server's own rule for a URL that names none
    options
        .get_database()
        .unwrap_or_else(|| options.get_username())
        .to_owned()
}

fn list(noun: &str, names: &[&str]) -> String {
    let s = if names.len() == 1 { "" } else { "s" };
    format!("{noun}{s} {}", names.join(", "))
}
