//! The four roles, both ways: what each may do, and what it may not.

use sqlx::{PgPool, Row as _};
use store::testing::{self, TestDatabase};

use crate::fixtures::{Stage, at_stage};

/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
const INSUFFICIENT_PRIVILEGE: &str = "42501";
const CHECK_VIOLATION: &str = "23514";

#[derive(Clone, Copy, Debug)]
enum Role {
    Owner,
    Api,
    Operator,
    Exporter,
}

impl Role {
    fn pool(self, database: &TestDatabase) -> &PgPool {
        match self {
            Self::Owner => &database.owner_pool,
            Self::Api => &database.api_pool,
            Self::Operator => &database.operator_pool,
            Self::Exporter => &database.exporter_pool,
        }
    }
}

/// Every right of the programs on every table and column there is, the catalogue's too. The statements of the
/// product run under these roles in all other tests, so what is missing here is missed there.
const RIGHTS: &str = "\
api: EXECUTE popularity_reports_schema_version
api: INSERT outbox_messages (aggregateid, aggregatetype, available_at, created_at, id, payload, traceparent, type)
api: INSERT reports (cr_name, cr_namespace, created_at, expires_at, id, idempotency_fingerprint, idempotency_key, parameters, requested_by, traceparent, updated_at)
api: SELECT reports (artifact_blob, artifact_bytes, artifact_container, artifact_content_type, artifact_rows, artifact_schema, artifact_sha256, attempts, cr_deleted_at, cr_name, cr_namespace, cr_uid, created_at, data_as_of, dispatched_at, expires_at, failure_message, failure_reason, finished_at, id, idempotency_fingerprint, idempotency_key, parameters, relayed_at, requested_by, started_at, state, traceparent, updated_at)
exporter: EXECUTE popularity_reports_schema_version
exporter: SELECT album_artists (all)
exporter: SELECT artists (all)
exporter: SELECT genres (all)
exporter: SELECT music_album_genres (all)
exporter: SELECT music_albums (all)
exporter: SELECT ratings (all)
exporter: SELECT reports (artifact_blob, artifact_bytes, artifact_container, artifact_content_type, artifact_rows, artifact_schema, artifact_sha256, attempts, cr_deleted_at, cr_name, cr_namespace, cr_uid, created_at, data_as_of, dispatched_at, expires_at, failure_message, failure_reason, finished_at, id, parameters, relayed_at, requested_by, started_at, state, traceparent, updated_at)
exporter: UPDATE reports (artifact_blob, artifact_bytes, artifact_container, artifact_content_type, artifact_rows, artifact_schema, artifact_sha256, attempts, data_as_of, finished_at, started_at, state, updated_at)
operator: DELETE outbox_messages
operator: EXECUTE popularity_reports_schema_version
operator: INSERT outbox_messages (aggregateid, aggregatetype, available_at, created_at, id, payload, traceparent, type)
operator: INSERT reports (cr_name, cr_namespace, cr_uid, created_at, expires_at, id, parameters, traceparent, updated_at)
operator: SELECT outbox_messages (aggregateid, attempts, available_at, created_at, id, payload, processed_at, traceparent, type)
operator: SELECT reports (artifact_blob, artifact_bytes, artifact_container, artifact_content_type, artifact_rows, artifact_schema, artifact_sha256, attempts, cr_deleted_at, cr_name, cr_namespace, cr_uid, created_at, data_as_of, dispatched_at, expires_at, failure_message, failure_reason, file_retained, finished_at, id, parameters, relayed_at, requested_by, started_at, state, traceparent, updated_at)
operator: UPDATE outbox_messages (attempts, available_at, last_error, processed_at)
operator: UPDATE reports (cr_deleted_at, cr_name, cr_namespace, cr_uid, dispatched_at, failure_message, failure_reason, file_retained, finished_at, relayed_at, state, updated_at)";

const RIGHTS_QUERY: &str = "
    WITH relations AS (
        SELECT oid, relname FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v', 'm', 'f', 'p')
    ),
    programs AS (
        SELECT program, 'popularity_reports_' || program AS role
        FROM unnest(ARRAY['api', 'operator', 'exporter']) AS program
    ),
    by_column AS (
        SELECT program, right_name, relname, has_table_privilege(role, relations.oid, right_name) AS on_all,
               string_agg(attname, ', ' ORDER BY attname) AS columns
        FROM programs CROSS JOIN relations
        CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) AS right_name
        JOIN pg_attribute ON attrelid = relations.oid AND attnum > 0 AND NOT attisdropped
        WHERE has_column_privilege(role, relations.oid, attnum, right_name)
        GROUP BY program, role, right_name, relname, relations.oid
    )
    SELECT format('%s: %s %s (%s)', program, right_name, relname, CASE WHEN on_all THEN 'all' ELSE columns END)
    FROM by_column
    UNION ALL
    SELECT format('%s: %s %s', program, right_name, relname)
    FROM programs CROSS JOIN relations
    CROSS JOIN unnest(ARRAY['DELETE', 'TRUNCATE', 'TRIGGER']) AS right_name
    WHERE has_table_privilege(role, relations.oid, right_name)
    UNION ALL
    SELECT format('%s: USAGE %s', program, relname)
    FROM programs CROSS JOIN pg_class
    WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace AND has_sequence_privilege(role, pg_class.oid, 'USAGE')
    UNION ALL
    SELECT format('%s: EXECUTE %s', program, proname)
    FROM programs CROSS JOIN pg_proc
    WHERE pronamespace = 'public'::regnamespace AND prorettype <> 'trigger'::regtype
      AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_proc.oid AND deptype = 'e')
      AND has_function_privilege(role, pg_proc.oid, 'EXECUTE')
    UNION ALL
    SELECT format('%s: CREATE public', program) FROM programs WHERE has_schema_privilege(role, 'public', 'CREATE')
    ORDER BY 1";

/// Statements beyond those of the product, which the other tests run.
const MAY: [(Role, &str); 6] = [
    (Role::Owner, "ALTER TABLE reports ADD COLUMN more text"),
    (Role::Owner, "CREATE TABLE popularity_reports_more (id int)"),
    (Role::Owner, "SELECT popularity_reports_grant_catalogue()"),
    (Role::Owner, "SELECT * FROM popularity_reports_migrations"),
    (Role::Exporter, "SELECT * FROM ratings"),
    (Role::Operator, "DELETE FROM outbox_messages"),
];

/// What somebody who took over a program's login would like to do, and the code that refuses it.
const MAY_NOT: [(Role, &str, &str); 42] = [
    (Role::Owner, "SELECT * FROM music_albums", INSUFFICIENT_PRIVILEGE),
    (Role::Owner, "DROP TABLE ratings", INSUFFICIENT_PRIVILEGE),
    (
        Role::Owner,
        "ALTER TABLE genres ADD COLUMN mine int",
        INSUFFICIENT_PRIVILEGE,
    ),
    (
        Role::Owner,
        "GRANT SELECT ON ratings TO popularity_reports_exporter",
        INSUFFICIENT_PRIVILEGE,
    ),
    (Role::Owner, "CREATE ROLE mine", INSUFFICIENT_PRIVILEGE),
    (Role::Owner, "CREATE SCHEMA mine", INSUFFICIENT_PRIVILEGE),
    (
        Role::Owner,
        "SET ROLE popularity_reports_operator",
        INSUFFICIENT_PRIVILEGE,
    ),
    (
        Role::Api,
        "UPDATE reports SET state = 'Failed'",
        INSUFFICIENT_PRIVILEGE,
    ),
    (
        Role::Api,
        "UPDATE reports SET requested_by = NULL",
        INSUFFICIENT_PRIVILEGE,
    ),
    (Role::Api, "DELETE FROM reports", INSUFFICIENT_PRIVILEGE),
    (Role::Api, "TRUNCATE reports", INSUFFICIENT_PRIVILEGE),
    (
        Role::Api,
        "INSERT INTO reports (id, state) VALUES (gen_random_uuid(), 'Completed')",
        INSUFFICIENT_PRIVILEGE,
    ),
    (
        Role::Api,
        "INSERT INTO reports (id, cr_uid) VALUES (gen_random_uuid(), 'u')",
        INSUFFICIENT_PRIVILEGE,
    ),
    (Role::Api, "SELECT * FROM outbox_messages", INSUFFICIENT_PRIVILEGE),
    (
        Role::Api,
        "UPDATE outbox_messages SET processed_at = now()",
        INSUFFICIENT_PRIVILEGE,
    ),
    (Role::Api, "DELETE FROM outbox_messages", INSUFFICIENT_PRIVILEGE),
    (Role::Api, "SELECT * FROM music_albums", INSUFFICIENT_PRIVILEGE),
    (
        Role::Api,
        "SELECT * FROM popularity_reports_migrations",
        INSUFFICIENT_PRIVILEGE,
    ),
    (
        Role::Api,
        "SELECT popularity_reports_grant_catalogue()",
        INSUFFICIENT_PRIVILEGE,
    ),
    (
        Role::Api,
        "ALTER TABLE reports DROP COLUMN parameters",
        INSUFFICIENT_PRIVILEGE,
    ),
    (Role::Api, "CREATE TABLE mine (id int)", INSUFFICIENT_PRIVILEGE),
    (
        Role::Operator,
        "UPDATE reports SET attempts = 1, started_at = now()",
        INSUFFICIENT_PRIVILEGE,
    ),
    (
        Role::Operator,
        "UPDATE reports SET artifact_blob = 'theirs.csv'",
        INSUFFICIENT_PRIVILEGE,
    ),
    // the state alone it may write, and the table's CHECKs tie that to columns which it may not
    (
        Role::Operator,
        "UPDATE reports SET state = 'Completed', finished_at = now()",
        CHECK_VIOLATION,
    ),
    (
        Role::Operator,
        "UPDATE reports SET state = 'Processing'",
        CHECK_VIOLATION,
    ),
    (
        Role::Operator,
        "UPDATE reports SET parameters = '{}'",
        INSUFFICIENT_PRIVILEGE,
    ),
    (
        Role::Operator,
        "UPDATE reports SET requested_by = NULL",
        INSUFFICIENT_PRIVILEGE,
    ),
    (Role::Operator, "DELETE FROM reports", INSUFFICIENT_PRIVILEGE),
    (
        Role::Operator,
        "SELECT idempotency_key FROM reports",
        INSUFFICIENT_PRIVILEGE,
    ),
    (
        Role::Operator,
        "UPDATE outbox_messages SET payload = '{}'",
        INSUFFICIENT_PRIVILEGE,
    ),
    (Role::Operator, "SELECT * FROM ratings", INSUFFICIENT_PRIVILEGE),
    (
        Role::Operator,
        "CREATE TABLE mine (id int)",
        INSUFFICIENT_PRIVILEGE,
    ),
    (
        Role::Exporter,
        "INSERT INTO reports (id) VALUES (gen_random_uuid())",
        INSUFFICIENT_PRIVILEGE,
    ),
    (
        Role::Exporter,
        "UPDATE reports SET state = 'Failed', finished_at = now()",
        CHECK_VIOLATION,
    ),
    (
        Role::Exporter,
        "UPDATE reports SET failure_reason = 'Cancelled'",
        INSUFFICIENT_PRIVILEGE,
    ),
    (
        Role::Exporter,
        "UPDATE reports SET expires_at = 'infinity'",
        INSUFFICIENT_PRIVILEGE,
    ),
    (
        Role::Exporter,
        "SELECT idempotency_key FROM reports",
        INSUFFICIENT_PRIVILEGE,
    ),
    (
        Role::Exporter,
        "SELECT * FROM outbox_messages",
        INSUFFICIENT_PRIVILEGE,
    ),
    (Role::Exporter, "SELECT * FROM tracks", INSUFFICIENT_PRIVILEGE),
    (
        Role::Exporter,
        "UPDATE ratings SET rating = 5",
        INSUFFICIENT_PRIVILEGE,
    ),
    (Role::Exporter, "DELETE FROM music_albums", INSUFFICIENT_PRIVILEGE),
    (
        Role::Exporter,
        "CREATE TABLE mine (id int)",
        INSUFFICIENT_PRIVILEGE,
    ),
];

/// Tries the statement and takes it back. The error is PostgreSQL's code.
async fn attempt(database: &TestDatabase, role: Role, statement: &'static str) -> Result<(), String> {
    let mut transaction = role.pool(database).begin().await.unwrap();
    match sqlx::query(statement).execute(&mut *transaction).await {
        Ok(_) => Ok(()),
        Err(error) => {
            let code = error.as_database_error().and_then(|error| error.code());
            Err(code.map_or_else(|| error.to_string(), Into::into))
        }
    }
}

#[tokio::test]
async fn the_programs_have_these_rights_and_no_others() {
    let database = testing::database().await;

    let rights: Vec<String> = sqlx::query_scalar(RIGHTS_QUERY)
        .fetch_all(&database.admin_pool)
        .await
        .unwrap();

    assert_eq!(rights.join("\n"), RIGHTS);
}

#[tokio::test]
async fn each_role_may_do_its_work() {
    let database = testing::database().await;
    at_stage(&database, Stage::Accepted).await;

    for (role, statement) in MAY {
        let outcome = attempt(&database, role, statement).await;
        assert_eq!(outcome, Ok(()), "{role:?}: {statement}");
    }
}

#[tokio::test]
async fn each_role_may_do_nothing_else() {
    let database = testing::database().await;
    at_stage(&database, Stage::Accepted).await;

    for (role, statement, code) in MAY_NOT {
        let outcome = attempt(&database, role, statement).await;
        assert_eq!(outcome, Err(code.to_owned()), "{role:?}: {statement}");
    }
}

#[tokio::test]
async fn the_roles_of_earlier_versions_have_no_rights_left() {
    let database = testing::database().await;

    let left: Vec<String> = sqlx::query_scalar(
        "SELECT format('%s: %s %s', grantee::regrole, privilege_type, relname)
         FROM pg_class, aclexplode(relacl)
         WHERE grantee::regrole::text IN ('popularity_reports_app', 'popularity_reports_catalogue')",
    )
    .fetch_all(&database.admin_pool)
    .await
    .unwrap();

    assert_eq!(left, Vec::<String>::new());
}

#[tokio::test]
async fn all_that_the_migrations_make_belongs_to_the_owners_group() {
    let database = testing::empty_database().await;
    database.create_logins().await;
    store::migrations::run(&database.owner_pool).await.unwrap();

    let objects = sqlx::query(
        "SELECT relname AS name, relowner::regrole::text AS owner FROM pg_class
         WHERE relnamespace = 'public'::regnamespace
         UNION ALL
         SELECT proname, proowner::regrole::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
    )
    .fetch_all(&database.admin_pool)
    .await
    .unwrap();

    assert!(objects.len() > 10, "three tables, their indexes, three functions");
    for object in objects {
        let (name, owner): (String, String) = (object.get("name"), object.get("owner"));
        assert_eq!(owner, "popularity_reports_owner", "{name}");
    }
}
