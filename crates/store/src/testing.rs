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

/// A database that is there for one test and dropped with this value.
#[derive(Debug)]
pub struct TestDatabase {
    /// Its name.
    pub name: String,
    /// Its URL for a login in `popularity_reports_app`: what api, operator and exporter are given.
    pub app_url: SecretString,
    /// Its URL for a login in `popularity_reports_catalogue`: what the exporter reads albums with.
    pub catalogue_url: SecretString,
    /// Its URL for the superuser, who also stands for the owner of the catalogue.
    pub owner_url: SecretString,
    /// Connections by `app_url`.
    pub pool: PgPool,
    /// Connections by `catalogue_url`.
    pub catalogue_pool: PgPool,
    /// Connections by `owner_url`.
    pub owner_pool: PgPool,
    server: PgConnectOptions,
}

/// A database with the catalogue's tables (empty) and ours.
///
/// The server is that of `ADMIN_DATABASE_URL`, a superuser's URL.
///
/// # Panics
/// When the variable is unset or the server does not do what it is asked; the message says what to do.
pub async fn database() -> TestDatabase {
    let database = empty_database().await;
    database
        .owner_pool
        .execute(CATALOGUE_SCHEMA)
        .await
        .expect("create the catalogue's tables");
    crate::migrations::run(&database.owner_pool)
        .await
        .expect("run the migrations");
    database.create_logins().await;
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

    let owner = server.clone().database(&name);
    let login = |role: &str| {
        owner
            .clone()
            .username(&format!("{name}_{role}"))
            .password(PASSWORD)
    };
    let (app, catalogue) = (login("app"), login("catalogue"));
    let pool = |options: &PgConnectOptions| {
        PgPoolOptions::new()
            .max_connections(5)
            .connect_lazy_with(options.clone())
    };
    TestDatabase {
        app_url: url(&app),
        catalogue_url: url(&catalogue),
        owner_url: url(&owner),
        pool: pool(&app),
        catalogue_pool: pool(&catalogue),
        owner_pool: pool(&owner),
        name,
        server,
    }
}

impl TestDatabase {
    /// Makes a login for each role, once the migrations have made the roles.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn create_logins(&self) {
        let name = &self.name;
        for role in ["app", "catalogue"] {
            let statement = format!(
                "CREATE ROLE {name}_{role} LOGIN PASSWORD '{PASSWORD}' IN ROLE popularity_reports_{role}"
            );
            self.owner_pool
                .execute(AssertSqlSafe(statement))
                .await
                .expect("create a login");
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
                for statement in [
                    format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
                    format!("DROP ROLE IF EXISTS {name}_app"),
                    format!("DROP ROLE IF EXISTS {name}_catalogue"),
                ] {
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
