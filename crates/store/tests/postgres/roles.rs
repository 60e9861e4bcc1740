//! Both roles, both ways: what each may do, and what it may not.

use sqlx::PgPool;
use store::testing::{self, TestDatabase};

use crate::fixtures::{Stage, at_stage};

/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
const INSUFFICIENT_PRIVILEGE: &str = "42501";

#[derive(Clone, Copy, Debug)]
enum Role {
    App,
    Catalogue,
}

const WORK: [(Role, &str); 11] = [
    (Role::App, "SELECT * FROM reports"),
    (Role::App, "UPDATE reports SET updated_at = now()"),
    (Role::App, "SELECT * FROM outbox_messages FOR UPDATE SKIP LOCKED"),
    (Role::App, "UPDATE outbox_messages SET attempts = 1"),
    (Role::App, "DELETE FROM outbox_messages"),
    (Role::Catalogue, "SELECT * FROM music_albums"),
    (Role::Catalogue, "SELECT * FROM genres"),
    (Role::Catalogue, "SELECT * FROM music_album_genres"),
    (Role::Catalogue, "SELECT * FROM artists"),
    (Role::Catalogue, "SELECT * FROM album_artists"),
    (Role::Catalogue, "SELECT * FROM ratings"),
];

const ANYTHING_ELSE: [(Role, &str); 20] = [
    (Role::App, "DELETE FROM reports"),
    (Role::App, "TRUNCATE reports"),
    (Role::App, "ALTER TABLE reports DROP COLUMN parameters"),
    (Role::App, "CREATE TABLE mine (id int)"),
    (Role::App, "SELECT * FROM popularity_reports_migrations"),
    (Role::App, "SELECT * FROM popularity_reports_grant_catalogue()"),
    (Role::App, "SELECT * FROM music_albums"),
    (Role::App, "SELECT * FROM genres"),
    (Role::App, "SELECT * FROM ratings"),
    (Role::App, "INSERT INTO genres (name) VALUES ('x')"),
    (Role::Catalogue, "SELECT * FROM reports"),
    (Role::Catalogue, "UPDATE reports SET updated_at = now()"),
    (Role::Catalogue, "SELECT * FROM outbox_messages"),
    (Role::Catalogue, "SELECT * FROM tracks"),
    (Role::Catalogue, "INSERT INTO genres (name) VALUES ('x')"),
    (Role::Catalogue, "UPDATE ratings SET rating = 5"),
    (Role::Catalogue, "DELETE FROM music_albums"),
    (Role::Catalogue, "TRUNCATE ratings"),
    (Role::Catalogue, "CREATE TABLE mine (id int)"),
    (Role::Catalogue, "SELECT * FROM popularity_reports_migrations"),
];

/// Tries the statement and takes it back. The error is PostgreSQL's code.
async fn attempt(database: &TestDatabase, role: Role, statement: &'static str) -> Result<(), String> {
    let pool: &PgPool = match role {
        Role::App => &database.pool,
        Role::Catalogue => &database.catalogue_pool,
    };
    let mut transaction = pool.begin().await.unwrap();
    match sqlx::query(statement).execute(&mut *transaction).await {
        Ok(_) => Ok(()),
        Err(error) => {
            let code = error.as_database_error().and_then(|error| error.code());
            Err(code.map_or_else(|| error.to_string(), Into::into))
        }
    }
}

#[tokio::test]
async fn each_role_may_do_its_work() {
    let database = testing::database().await;
    at_stage(&database.pool, Stage::Accepted).await;

    for (role, statement) in WORK {
        let outcome = attempt(&database, role, statement).await;
        assert_eq!(outcome, Ok(()), "{role:?}: {statement}");
    }
}

#[tokio::test]
async fn each_role_may_do_nothing_else() {
    let database = testing::database().await;
    at_stage(&database.pool, Stage::Accepted).await;

    for (role, statement) in ANYTHING_ELSE {
        let outcome = attempt(&database, role, statement).await;
        assert_eq!(
            outcome,
            Err(INSUFFICIENT_PRIVILEGE.to_owned()),
            "{role:?}: {statement}"
        );
    }
}
