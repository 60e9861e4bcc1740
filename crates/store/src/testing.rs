//! A database of its own for each test, with the music-albums service's tables, our migrations applied and a
//! login for each role. Feature `testing`; used by the tests of this and of other crates.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "test support: a test without its database should stop and say why"
)]

use std::str::FromStr as _;

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection, PgPool};
use uuid::Uuid;

/// The tables of the music-albums service, kept beside the sample data that fills them.
pub const CATALOGUE_SCHEMA: &str = include_str!("../../../dev/sample-data/schema.sql");

const PASSWORD: &str = "test-only";

/// The group roles, made before the migrations as an administrator would, so that the owner's login needs no
/// right to make roles.
const ROLES: [&str; 2] = [
    include_str!("../../../migrations/20261124130000_create_roles.sql"),
    include_str!("../../../migrations/20261124160000_create_program_roles.sql"),
];

/// The programs' logins, and that of the migrations (`owner`): `<database>_<this>` is a member of
/// `popularity_reports_<this>` and of nothing else.
const LOGINS: [&str; 4] = ["owner", "api", "operator", "exporter"];

/// A database that is there for one test and dropped with this value.
#[derive(Debug)]
pub struct TestDatabase {
    /// Its name.
    pub name: String,
    /// Its URL for the server's superuser, who also stands for the owner of the catalogue.
    pub admin_url: SecretString,
    /// Its URL for the login that migrates.
    pub owner_url: SecretString,
    /// Its URL for the API's login.
    pub api_url: SecretString,
    /// Its URL for the operator's login.
    pub operator_url: SecretString,
    /// Its URL for the exporter's login, for the reports and for the catalogue.
    pub exporter_url: SecretString,
    /// Connections by `admin_url`.
    pub admin_pool: PgPool,
    /// Connections by `owner_url`.
    pub owner_pool: PgPool,
    /// Connections by `api_url`.
    pub api_pool: PgPool,
    /// Connections by `operator_url`.
    pub operator_pool: PgPool,
    /// Connections by `exporter_url`.
    pub exporter_pool: PgPool,
    server: PgConnectOptions,
}

/// A database with the catalogue's tables (empty) and ours, made by a login that has only the owner's rights.
///
/// The server is that of `ADMIN_DATABASE_URL`, a superuser's URL.
///
/// # Panics
/// When the variable is unset or the server does not do what it is asked; the message says what to do.
pub async fn database() -> TestDatabase {
    let database = catalogue_database().await;
    crate::migrations::run(&database.owner_pool)
        .await
        .expect("run the migrations");
    database
}

/// A database with the catalogue's tables (empty) and all logins, to be migrated by the product itself.
///
/// # Panics
/// As [`database`].
pub async fn catalogue_database() -> TestDatabase {
    let database = empty_database().await;
    database.create_logins().await;
    for statements in [
        CATALOGUE_SCHEMA,
        "GRANT SELECT ON music_albums, genres, music_album_genres, artists, album_artists, ratings
         TO popularity_reports_exporter",
    ] {
        database
            .admin_pool
            .execute(statements)
            .await
            .expect("create the catalogue's tables");
    }
    database
}

/// A database with nothing in it, for tests of the migrations themselves. Its logins do not exist until
/// [`TestDatabase::create_logins`].
///
/// # Panics
/// As [`database`].
pub async fn empty_database() -> TestDatabase {
    let server = server();
    let name = format!("test_{}", Uuid::new_v4().simple());
    let mut connection = connect(&server).await;
    connection
        .execute(AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .await
        .expect("create the test's database");
    connection
        .close()
        .await
        .expect("close the connection to the server");

    let admin = server.clone().database(&name);
    let [owner, api, operator, exporter] = LOGINS.map(|login| {
        admin
            .clone()
            .username(&format!("{name}_{login}"))
            .password(PASSWORD)
    });
    let pool = |options: &PgConnectOptions| {
        PgPoolOptions::new()
            .max_connections(5)
            .connect_lazy_with(options.clone())
    };
    TestDatabase {
        admin_url: url(&admin),
        owner_url: url(&owner),
        api_url: url(&api),
        operator_url: url(&operator),
        exporter_url: url(&exporter),
        admin_pool: pool(&admin),
        owner_pool: pool(&owner),
        api_pool: pool(&api),
        operator_pool: pool(&operator),
        exporter_pool: pool(&exporter),
        name,
        server,
    }
}

impl TestDatabase {
    /// Makes the group roles where they are absent, and a login for each, as an administrator does.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn create_logins(&self) {
        let name = &self.name;
        let logins = LOGINS.map(|login| {
            format!(
                "CREATE ROLE {name}_{login} LOGIN PASSWORD '{PASSWORD}' IN ROLE popularity_reports_{login}"
            )
        });
        for statements in ROLES.map(str::to_owned).into_iter().chain(logins) {
            self.admin_pool
                .execute(AssertSqlSafe(statements))
                .await
                .expect("create roles and logins");
        }
    }
}

impl Drop for TestDatabase {
    /// Drops database and logins, also after a failed test. Dropping is synchronous and the test's runtime
    /// may be a single thread, so it is done by a runtime of its own on a thread of its own.
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let mut connection = server.connect().await?;
                let database = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                let logins = LOGINS.map(|login| format!("DROP ROLE IF EXISTS {name}_{login}"));
                for statement in std::iter::once(database).chain(logins) {
                    connection.execute(AssertSqlSafe(statement)).await?;
                }
                connection.close().await
            })
        });
        match dropped.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("the test's database {} was left behind: {error}", self.name),
            Err(_) => eprintln!("the test's database {} was left behind", self.name),
        }
    }
}

fn server() -> PgConnectOptions {
    let Ok(url) = std::env::var("ADMIN_DATABASE_URL") else {
        panic!(
            "ADMIN_DATABASE_URL is not set. These tests need a PostgreSQL server (15 or later) on which they \
             may create databases and roles. `cargo xtask test` starts one and sets it; for a server that is \
             up already: export ADMIN_DATABASE_URL=postgres://postgres:PASSWORD@127.0.0.1:5432/postgres"
        );
    };
    PgConnectOptions::from_str(&url).expect("ADMIN_DATABASE_URL is not a postgres:// URL")
}

async fn connect(server: &PgConnectOptions) -> PgConnection {
    match server.connect().await {
        Ok(connection) => connection,
        Err(error) => panic!("the server of ADMIN_DATABASE_URL can not be used: {error}"),
    }
}

fn url(options: &PgConnectOptions) -> SecretString {
    options.to_url_lossy().to_string().into()
}

/// A pool for a URL of [`TestDatabase`], for tests that must not share one.
///
/// # Panics
/// When the URL is none.
pub fn pool(url: &SecretString, max: u32) -> PgPool {
    let options = PgConnectOptions::from_str(url.expose_secret()).expect("a postgres:// URL");
    PgPoolOptions::new()
        .max_connections(max)
        .connect_lazy_with(options)
}
