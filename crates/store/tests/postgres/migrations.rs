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

/// The migrations as they are in their folder, in order.
fn files() -> Vec<String> {
    let mut paths: Vec<_> = std::fs::read_dir("../../migrations")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect()
}

#[tokio::test]
async fn a_second_run_changes_nothing() {
    let database = testing::database().await;
    let before = (
        rows(&database.admin_pool, SHAPE).await,
        rows(&database.admin_pool, BOOKS).await,
    );

    let unreadable = migrations::run(&database.owner_pool).await.unwrap();

    let after = (
        rows(&database.admin_pool, SHAPE).await,
        rows(&database.admin_pool, BOOKS).await,
    );
    assert_eq!(unreadable, Vec::<String>::new());
    assert_eq!(before, after);
}

#[tokio::test]
async fn two_processes_at_once_apply_each_migration_once() {
    let database = testing::empty_database().await;
    database.create_logins().await;
    database.admin_pool.execute(CATALOGUE_SCHEMA).await.unwrap();

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

    let applied = rows(&database.admin_pool, BOOKS).await;
    assert_eq!(applied.len(), files().len(), "{applied:?}");
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
    database.admin_pool.execute(CATALOGUE_SCHEMA).await.unwrap();

    let replicas = (0..10).map(|_| {
        let pool = testing::pool(&database.admin_url, 1);
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
        .admin_pool
        .execute("CREATE TABLE reports (mine int)")
        .await
        .unwrap();
    let pool = testing::pool(&database.admin_url, 1);

    let failed = migrations::run(&pool).await;
    assert!(matches!(failed, Err(migrations::Error::Apply(_))), "{failed:?}");

    database.admin_pool.execute("DROP TABLE reports").await.unwrap();
    migrations::run(&testing::pool(&database.admin_url, 1))
        .await
        .unwrap();
}

#[tokio::test]
async fn the_other_services_tables_rows_and_migrations_are_not_touched() {
    let database = testing::empty_database().await;
    let pool = &database.admin_pool;
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
    let first = migrations::run(&database.admin_pool).await.unwrap();
    database.create_logins().await;
    let too_early = sqlx::query("SELECT FROM ratings")
        .execute(&database.exporter_pool)
        .await;

    database.admin_pool.execute(CATALOGUE_SCHEMA).await.unwrap();
    let second = migrations::run(&database.admin_pool).await.unwrap();

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
        .execute(&database.exporter_pool)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_migrating_login_that_does_not_own_the_catalogue_is_told_what_is_left_to_grant() {
    let database = testing::empty_database().await;
    database.create_logins().await;
    database.admin_pool.execute(CATALOGUE_SCHEMA).await.unwrap();

    let left = migrations::run(&database.owner_pool).await.unwrap();
    assert_eq!(left.len(), 6, "{left:?}");

    database
        .admin_pool
        .execute("GRANT SELECT ON music_albums, genres, music_album_genres, artists, album_artists, ratings TO popularity_reports_exporter")
        .await
        .unwrap();
    let left = migrations::run(&database.owner_pool).await.unwrap();
    assert_eq!(left, Vec::<String>::new());
}

/// The migrations with roles that no other test uses, made for these `prefix`es.
fn with_own_roles(prefix: &str) -> Vec<String> {
    const ROLES: [&str; 6] = ["app", "catalogue", "owner", "api", "operator", "exporter"];
    let renamed = |text: String| {
        ROLES.iter().fold(text, |text, role| {
            text.replace(&format!("popularity_reports_{role}"), &format!("{prefix}_{role}"))
        })
    };
    files().into_iter().map(renamed).collect()
}

async fn drop_roles(pool: &PgPool, prefix: &str) {
    let statement = format!(
        "DROP ROLE {prefix}_app, {prefix}_catalogue, {prefix}_owner, {prefix}_api, {prefix}_operator, {prefix}_exporter"
    );
    pool.execute(AssertSqlSafe(statement)).await.unwrap();
}

#[tokio::test]
async fn the_owner_of_the_database_needs_nothing_but_createrole_to_migrate_a_new_server() {
    let prefix = format!("fresh_{}", Uuid::new_v4().simple());
    let database = testing::empty_database().await;
    for statement in [
        format!("CREATE ROLE {prefix} LOGIN CREATEROLE PASSWORD 'm'"),
        format!("ALTER DATABASE {} OWNER TO {prefix}", database.name),
    ] {
        database
            .admin_pool
            .execute(AssertSqlSafe(statement))
            .await
            .unwrap();
    }
    let mut url: url::Url = database.admin_url.expose_secret().parse().unwrap();
    url.set_username(&prefix).unwrap();
    url.set_password(Some("m")).unwrap();
    let pool = testing::pool(&url.to_string().into(), 1);
    pool.execute(CATALOGUE_SCHEMA).await.unwrap();

    for statements in with_own_roles(&prefix) {
        pool.execute(AssertSqlSafe(statements)).await.unwrap();
    }

    let owner: String =
        sqlx::query_scalar("SELECT relowner::regrole::text FROM pg_class WHERE relname = 'reports'")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!(owner, format!("{prefix}_owner"));
    let left: Vec<String> = sqlx::query_scalar("SELECT popularity_reports_grant_catalogue()")
        .fetch_all(&pool)
        .await
        .unwrap();
    assert_eq!(left, Vec::<String>::new());
    pool.close().await;
    let server = testing::empty_database().await;
    drop(database);
    drop_roles(&server.admin_pool, &prefix).await;
    server
        .admin_pool
        .execute(AssertSqlSafe(format!("DROP ROLE {prefix}")))
        .await
        .unwrap();
}

#[tokio::test]
async fn databases_of_one_server_may_create_the_roles_at_the_same_time() {
    let prefix = format!("race_{}", Uuid::new_v4().simple());
    let roles: Vec<_> = with_own_roles(&prefix)
        .into_iter()
        .filter(|statements| statements.contains("CREATE ROLE"))
        .collect();
    assert_eq!(roles.len(), 2);
    for _ in 0..3 {
        let databases = futures::future::join_all((0..4).map(|_| testing::empty_database())).await;

        let runs = databases.iter().map(|database| {
            let (pool, statements) = (database.admin_pool.clone(), roles.concat());
            tokio::spawn(async move { pool.execute(AssertSqlSafe(statements)).await.map(|_| ()) })
        });
        for outcome in futures::future::join_all(runs).await {
            outcome.unwrap().unwrap();
        }

        let server = testing::empty_database().await;
        drop(databases);
        drop_roles(&server.admin_pool, &prefix).await;
    }
}
