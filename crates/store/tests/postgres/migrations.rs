use std::process::{Command, Stdio};

use secrecy::ExposeSecret as _;
use sqlx::{AssertSqlSafe, Executor as _, PgPool};
use store::migrations;
use store::testing::{self, CATALOGUE_SCHEMA};
use uuid::Uuid;

const CHILD_DATABASE: &str = "MIGRATIONS_TEST_DATABASE_URL";

async fn rows(pool: &PgPool, query: &'static str) -> Vec<String> {
    sqlx::query_scalar(query).fetch_all(pool).await.unwrap()
}

/// Everything that PostgreSQL knows of the tables in schema public, but for who may read them.
const SHAPE: &str = "
    SELECT format('%s %s: %s %s %s', relname, relkind, attname, format_type(atttypid, atttypmod), attnotnull)
    FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
    WHERE relnamespace = 'public'::regnamespace AND attnum > 0
    UNION ALL
    SELECT format('%s %s', conrelid::regclass, pg_get_constraintdef(oid)) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace
    UNION ALL
    SELECT format('%s %s', tgrelid::regclass, tgname) FROM pg_trigger WHERE NOT tgisinternal
    ORDER BY 1";

const BOOKS: &str = "
    SELECT format('%s %s %s %s', version, installed_on, success, encode(checksum, 'hex'))
    FROM popularity_reports_migrations ORDER BY version";

#[tokio::test]
async fn a_second_run_changes_nothing() {
    let database = testing::database().await;
    let before = (
        rows(&database.owner_pool, SHAPE).await,
        rows(&database.owner_pool, BOOKS).await,
    );

    let unreadable = migrations::run(&database.owner_pool).await.unwrap();

    let after = (
        rows(&database.owner_pool, SHAPE).await,
        rows(&database.owner_pool, BOOKS).await,
    );
    assert_eq!(unreadable, Vec::<String>::new());
    assert_eq!(before, after);
}

#[tokio::test]
async fn two_processes_at_once_apply_each_migration_once() {
    let database = testing::empty_database().await;
    database.owner_pool.execute(CATALOGUE_SCHEMA).await.unwrap();

    let children: Vec<_> = (0..2)
        .map(|_| {
            Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "migrations::runs_as_a_process_of_its_own",
                    "--ignored",
                    "--nocapture",
                ])
                .env(CHILD_DATABASE, database.owner_url.expose_secret())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(said.contains("1 passed"), "{said}");
    }

    let applied = rows(&database.owner_pool, BOOKS).await;
    assert_eq!(
        applied.len(),
        std::fs::read_dir("../../migrations").unwrap().count() - 1,
        "{applied:?}"
    );
}

#[tokio::test]
#[ignore = "started as a process by two_processes_at_once_apply_each_migration_once"]
async fn runs_as_a_process_of_its_own() {
    let url = std::env::var(CHILD_DATABASE).unwrap().into();
    migrations::run(&testing::pool(&url, 1)).await.unwrap();
}

#[tokio::test]
async fn ten_replicas_at_once_apply_each_migration_once() {
    let database = testing::empty_database().await;
    database.owner_pool.execute(CATALOGUE_SCHEMA).await.unwrap();

    let replicas = (0..10).map(|_| {
        let pool = testing::pool(&database.owner_url, 1);
        tokio::spawn(async move { migrations::run(&pool).await })
    });
    for outcome in futures::future::join_all(replicas).await {
        assert_eq!(outcome.unwrap().unwrap(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_run_that_fails_leaves_no_lock_behind() {
    let database = testing::empty_database().await;
    database
        .owner_pool
        .execute("CREATE TABLE reports (mine int)")
        .await
        .unwrap();
    let pool = testing::pool(&database.owner_url, 1);

    let failed = migrations::run(&pool).await;
    assert!(matches!(failed, Err(migrations::Error::Apply(_))), "{failed:?}");

    database.owner_pool.execute("DROP TABLE reports").await.unwrap();
    migrations::run(&testing::pool(&database.owner_url, 1))
        .await
        .unwrap();
}

#[tokio::test]
async fn the_other_services_tables_rows_and_migrations_are_not_touched() {
    let database = testing::empty_database().await;
    let pool = &database.owner_pool;
    pool.execute(CATALOGUE_SCHEMA).await.unwrap();
    pool.execute(
        "CREATE TABLE _sqlx_migrations (version bigint PRIMARY KEY);
         INSERT INTO _sqlx_migrations VALUES (1);
         INSERT INTO music_albums (id, slug, title, year_of_release)
             VALUES ('00000000-0000-0000-0000-000000000001', 'one', 'One', 1999);
         INSERT INTO ratings (user_id, music_album_id, rating)
             SELECT gen_random_uuid(), '00000000-0000-0000-0000-000000000001', 1 + n % 5
             FROM generate_series(1, 50) AS n;",
    )
    .await
    .unwrap();
    let rows_of_theirs = "
        SELECT to_jsonb(row)::text FROM ratings AS row
        UNION ALL SELECT to_jsonb(row)::text FROM music_albums AS row
        UNION ALL SELECT to_jsonb(row)::text FROM _sqlx_migrations AS row
        ORDER BY 1";
    let before = (rows(pool, SHAPE).await, rows(pool, rows_of_theirs).await);

    migrations::run(pool).await.unwrap();

    let ours = ["reports", "outbox_messages", "popularity_reports_migrations"];
    let mut shape = rows(pool, SHAPE).await;
    shape.retain(|line| !ours.iter().any(|table| line.starts_with(table)));
    assert_eq!((shape, rows(pool, rows_of_theirs).await), before);
}

#[tokio::test]
async fn catalogue_tables_that_appear_later_are_granted_by_the_next_run() {
    let database = testing::empty_database().await;
    let first = migrations::run(&database.owner_pool).await.unwrap();
    database.create_logins().await;
    let too_early = sqlx::query("SELECT FROM ratings")
        .execute(&database.catalogue_pool)
        .await;

    database.owner_pool.execute(CATALOGUE_SCHEMA).await.unwrap();
    let second = migrations::run(&database.owner_pool).await.unwrap();

    assert_eq!(
        first,
        [
            "music_albums",
            "genres",
            "music_album_genres",
            "artists",
            "album_artists",
            "ratings"
        ]
    );
    assert!(too_early.is_err());
    assert_eq!(second, Vec::<String>::new());
    sqlx::query("SELECT FROM ratings")
        .execute(&database.catalogue_pool)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_migrating_role_that_does_not_own_the_catalogue_is_told_what_is_left_to_grant() {
    let database = testing::database().await;
    let (name, pool) = (&database.name, &database.owner_pool);
    // the roles are there already, so this login needs no CREATEROLE
    let second = testing::empty_database().await;
    second.owner_pool.execute(CATALOGUE_SCHEMA).await.unwrap();
    let migrator = format!("{name}_migrator");
    pool.execute(AssertSqlSafe(format!(
        "CREATE ROLE {migrator} LOGIN PASSWORD 'm'"
    )))
    .await
    .unwrap();
    second
        .owner_pool
        .execute(AssertSqlSafe(format!(
            "GRANT CREATE, USAGE ON SCHEMA public TO {migrator} WITH GRANT OPTION"
        )))
        .await
        .unwrap();
    let mut url: url::Url = second.owner_url.expose_secret().parse().unwrap();
    url.set_username(&migrator).unwrap();
    url.set_password(Some("m")).unwrap();

    let left = migrations::run(&testing::pool(&url.to_string().into(), 1))
        .await
        .unwrap();
    assert_eq!(left.len(), 6, "{left:?}");

    let by_the_owner = sqlx::query_scalar::<_, String>("SELECT popularity_reports_grant_catalogue()")
        .fetch_all(&second.owner_pool)
        .await
        .unwrap();
    assert_eq!(by_the_owner, Vec::<String>::new());
    drop(second);
    pool.execute(AssertSqlSafe(format!("DROP ROLE {migrator}")))
        .await
        .unwrap();
}

#[tokio::test]
async fn databases_of_one_server_may_create_the_roles_at_the_same_time() {
    // Roles that no other test uses, by the same statements.
    let prefix = format!("race_{}", Uuid::new_v4().simple());
    let statements = include_str!("../../../../migrations/20261124130000_create_roles.sql")
        .replace("popularity_reports", &prefix);
    for _ in 0..3 {
        let databases = futures::future::join_all((0..4).map(|_| testing::empty_database())).await;

        let runs = databases.iter().map(|database| {
            let (pool, statements) = (database.owner_pool.clone(), statements.clone());
            tokio::spawn(async move { pool.execute(AssertSqlSafe(statements)).await.map(|_| ()) })
        });
        for outcome in futures::future::join_all(runs).await {
            outcome.unwrap().unwrap();
        }

        let server = testing::empty_database().await;
        drop(databases);
        let drop_roles = format!("DROP ROLE {prefix}_app, {prefix}_catalogue");
        server
            .owner_pool
            .execute(AssertSqlSafe(drop_roles))
            .await
            .unwrap();
    }
}
