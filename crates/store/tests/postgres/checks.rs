//! What doctor and readiness say of a database, for each thing that may be missing.

use std::collections::BTreeSet;

use checks::{Check, Outcome};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{AssertSqlSafe, Executor as _, PgPool};
use store::checks::{self as of_store, Program, names};
use store::pool::Login;
use store::testing::{self, TestDatabase};

const PROGRAMS: [Program; 3] = [Program::Api, Program::Operator, Program::Exporter];

fn pool(database: &TestDatabase, program: Program) -> &PgPool {
    match program {
        Program::Api => &database.api_pool,
        Program::Operator => &database.operator_pool,
        Program::Exporter => &database.exporter_pool,
    }
}

async fn run(database: &TestDatabase, statement: String) {
    database
        .admin_pool
        .execute(AssertSqlSafe(statement))
        .await
        .unwrap();
}

fn of(checks: &[Check], name: &str) -> Check {
    let found = checks.iter().find(|check| check.name == name);
    found.cloned().unwrap()
}

#[track_caller]
fn assert_missing(check: &Check, what: &str, remedy: &str) {
    assert!(check.is_missing(), "{check}");
    assert!(check.outcome.message().contains(what), "{check}");
    assert!(
        check.remedy.clone().unwrap_or_default().contains(remedy),
        "{check}"
    );
}

#[tokio::test]
async fn a_migrated_database_is_as_each_program_needs_it() {
    let database = testing::database().await;

    for program in PROGRAMS {
        for check in of_store::reports(pool(&database, program), program).await {
            assert!(matches!(check.outcome, Outcome::Ok(_)), "{program:?}: {check}");
        }
    }
    let catalogue = of_store::catalogue(&database.exporter_pool).await;
    assert_eq!(catalogue, Check::ok(names::CATALOGUE, "6 tables can be read"));
    let clock = of_store::clock(&database.operator_pool).await;
    assert!(!clock.failed(), "{clock}");
}

/// The list in code and the grants of the migrations are the same, both ways.
#[tokio::test]
async fn the_needs_are_what_the_migrations_grant() {
    let database = testing::database().await;

    for program in PROGRAMS {
        let granted: Vec<(String, String, String)> = sqlx::query_as(
            "SELECT c.oid::regclass::text, acl.privilege_type, a.attname::text
             FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid, aclexplode(a.attacl) acl
             WHERE c.relnamespace = 'public'::regnamespace AND acl.grantee = to_regrole($1)
             UNION ALL
             SELECT c.oid::regclass::text, acl.privilege_type, ''
             FROM pg_class c, aclexplode(c.relacl) acl
             WHERE c.relnamespace = 'public'::regnamespace AND acl.grantee = to_regrole($1)
               AND c.relname IN ('reports', 'outbox_messages')",
        )
        .bind(program.role())
        .fetch_all(&database.admin_pool)
        .await
        .unwrap();
        let granted: BTreeSet<_> = granted
            .into_iter()
            .map(|(relation, privilege, column)| (format!("public.{relation}"), privilege, column))
            .collect();
        let mut needed = BTreeSet::new();
        for need in program.needs() {
            let columns = if need.columns.is_empty() {
                &[""]
            } else {
                need.columns
            };
            needed.extend(columns.iter().map(|column| {
                (
                    need.relation.to_owned(),
                    need.privilege.to_owned(),
                    (*column).to_owned(),
                )
            }));
        }

        assert_eq!(needed, granted, "{program:?}");
    }
}

#[tokio::test]
async fn a_database_that_was_never_migrated_is_told_with_the_command_that_does_it() {
    let database = testing::catalogue_database().await;

    let checks = of_store::reports(&database.operator_pool, Program::Operator).await;

    assert!(matches!(of(&checks, names::DATABASE).outcome, Outcome::Ok(_)));
    assert_missing(
        &of(&checks, names::SCHEMA),
        "table public.reports is missing",
        "operator migrate",
    );
    assert!(matches!(
        of(&checks, names::GRANTS).outcome,
        Outcome::NotChecked(_)
    ));
}

#[tokio::test]
async fn a_schema_that_is_older_than_the_program_is_told() {
    let database = testing::database().await;
    run(
        &database,
        "DELETE FROM popularity_reports_migrations WHERE version > 20261124150000".to_owned(),
    )
    .await;

    let checks = of_store::reports(&database.operator_pool, Program::Operator).await;

    assert_missing(
        &of(&checks, names::SCHEMA),
        "at migration 20261124150000, this program needs",
        "operator migrate",
    );
}

#[tokio::test]
async fn a_schema_that_is_newer_than_the_program_is_well() {
    let database = testing::database().await;
    run(
        &database,
        "INSERT INTO popularity_reports_migrations (version, description, success, checksum, execution_time)
         VALUES (29991231000000, 'from the future', true, '', 0)"
            .to_owned(),
    )
    .await;

    let checks = of_store::reports(&database.operator_pool, Program::Operator).await;

    assert_eq!(
        of(&checks, names::SCHEMA),
        Check::ok(names::SCHEMA, "at migration 29991231000000")
    );
}

#[tokio::test]
async fn a_login_without_its_role_is_told_and_the_grant_repairs_it() {
    let database = testing::database().await;
    let login = format!("{}_operator", database.name);
    run(
        &database,
        format!("REVOKE popularity_reports_operator FROM {login}"),
    )
    .await;

    let grants = of(
        &of_store::reports(&database.operator_pool, Program::Operator).await,
        names::GRANTS,
    );

    let remedy = format!("GRANT popularity_reports_operator TO {login};");
    assert_missing(
        &grants,
        "is no member of role popularity_reports_operator",
        &remedy,
    );
    run(&database, grants.remedy.unwrap()).await;
    let repaired = of_store::reports(&database.operator_pool, Program::Operator).await;
    assert!(!of(&repaired, names::GRANTS).failed());
}

/// The rights of the group roles in this database only: they are this database's tables.
#[tokio::test]
async fn a_role_without_a_right_is_told_by_table_and_column_and_the_grant_repairs_it() {
    for (program, revoke, what) in [
        (
            Program::Operator,
            "UPDATE (dispatched_at) ON reports",
            "UPDATE on public.reports",
        ),
        (
            Program::Operator,
            "DELETE ON outbox_messages",
            "DELETE on public.outbox_messages",
        ),
        (
            Program::Api,
            "INSERT (payload) ON outbox_messages",
            "INSERT on public.outbox_messages",
        ),
        (
            Program::Exporter,
            "UPDATE (artifact_rows) ON reports",
            "UPDATE on public.reports",
        ),
    ] {
        let database = testing::database().await;
        run(&database, format!("REVOKE {revoke} FROM {}", program.role())).await;

        let grants = of(
            &of_store::reports(pool(&database, program), program).await,
            names::GRANTS,
        );

        assert_missing(&grants, what, &format!("TO {};", program.role()));
        run(&database, grants.remedy.unwrap()).await;
        let repaired = of_store::reports(pool(&database, program), program).await;
        assert!(!of(&repaired, names::GRANTS).failed(), "{revoke}");
    }
}

#[tokio::test]
async fn the_catalogue_is_told_by_the_tables_that_are_missing_or_closed() {
    let database = testing::database().await;
    run(
        &database,
        "REVOKE SELECT ON ratings FROM popularity_reports_exporter".to_owned(),
    )
    .await;

    let closed = of_store::catalogue(&database.exporter_pool).await;

    assert_missing(
        &closed,
        "may not SELECT from table public.ratings",
        "GRANT SELECT ON public.ratings TO ",
    );
    run(&database, "DROP TABLE ratings".to_owned()).await;
    assert_missing(
        &of_store::catalogue(&database.exporter_pool).await,
        "no table public.ratings",
        "CATALOG_DATABASE_URL",
    );
}

/// A pool by the operator's URL, altered.
fn altered(database: &TestDatabase, alter: impl FnOnce(&mut url::Url)) -> PgPool {
    let mut url = database.operator_url.expose_secret().parse().unwrap();
    alter(&mut url);
    let url: SecretString = url.to_string().into();
    store::pool::connect(&url, &Login::Url, 1, "test").unwrap()
}

#[tokio::test]
async fn a_database_or_a_login_that_is_missing_is_told_by_name() {
    let database = testing::database().await;

    let no_database = altered(&database, |url| url.set_path("nowhere"));
    let no_login = altered(&database, |url| url.set_username("nobody").unwrap());

    let check = of(
        &of_store::reports(&no_database, Program::Operator).await,
        names::DATABASE,
    );
    assert_missing(&check, "has no database nowhere", "CREATE DATABASE nowhere;");
    let check = of(
        &of_store::reports(&no_login, Program::Operator).await,
        names::DATABASE,
    );
    assert_missing(&check, "refuses login nobody", "CREATE ROLE nobody LOGIN");
    assert!(
        !check.to_string().contains("test-only"),
        "the password is not shown"
    );
}

#[tokio::test]
async fn a_server_that_is_away_may_come_back_by_itself() {
    let url: SecretString = "postgres://somebody@127.0.0.1:9/reports".into();
    let pool = store::pool::connect(&url, &Login::Url, 1, "test").unwrap();

    let checks = of_store::reports(&pool, Program::Operator).await;

    let check = of(&checks, names::DATABASE);
    assert!(matches!(check.outcome, Outcome::Unavailable(_)), "{check}");
    assert!(
        check.outcome.message().contains("127.0.0.1:9 does not answer"),
        "{check}"
    );
}
