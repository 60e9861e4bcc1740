use sqlx::AssertSqlSafe;
use store::testing;

use crate::fixtures::{Stage, at_stage};

/// Where the report is, what is done to its row behind the code's back, and which constraint refuses it.
const CONTRADICTIONS: [(Stage, &str, &str); 24] = [
    (Stage::Accepted, "state = 'Paused'", "reports_state_is_known"),
    (
        Stage::Accepted,
        "parameters = '[]'",
        "reports_parameters_are_an_object",
    ),
    (
        Stage::Accepted,
        "attempts = 1",
        "reports_attempts_are_counted_from_the_first_start",
    ),
    (
        Stage::Processing,
        "started_at = NULL",
        "reports_attempts_are_counted_from_the_first_start",
    ),
    (
        Stage::Processing,
        "attempts = -1",
        "reports_attempts_are_counted_from_the_first_start",
    ),
    (
        Stage::Processing,
        "state = 'Pending'",
        "reports_pending_has_not_started",
    ),
    (
        Stage::Accepted,
        "state = 'Processing'",
        "reports_processing_and_completed_have_started",
    ),
    (
        Stage::Completed,
        "finished_at = NULL",
        "reports_terminal_states_have_finished",
    ),
    (
        Stage::Processing,
        "finished_at = now()",
        "reports_terminal_states_have_finished",
    ),
    (
        Stage::Processing,
        "state = 'Completed', finished_at = now()",
        "reports_completed_has_its_artifact",
    ),
    (
        Stage::Completed,
        "artifact_sha256 = NULL",
        "reports_completed_has_its_artifact",
    ),
    (
        Stage::Processing,
        "artifact_blob = 'x.csv'",
        "reports_completed_has_its_artifact",
    ),
    (
        Stage::Completed,
        "artifact_bytes = -1",
        "reports_artifact_is_well_formed",
    ),
    (
        Stage::Completed,
        "artifact_sha256 = 'abc'",
        "reports_artifact_is_well_formed",
    ),
    (
        Stage::FailedWhileProcessing,
        "failure_reason = NULL",
        "reports_failed_has_its_reason",
    ),
    (
        Stage::Processing,
        "failure_reason = 'Cancelled'",
        "reports_failed_has_its_reason",
    ),
    (
        Stage::FailedWhileProcessing,
        "failure_reason = 'no word'",
        "reports_failure_reason_is_a_word",
    ),
    (
        Stage::Dispatched,
        "relayed_at = NULL",
        "reports_dispatched_was_relayed",
    ),
    (
        Stage::Accepted,
        "cr_deleted_at = now()",
        "reports_deleted_cr_has_its_uid",
    ),
    (
        Stage::Accepted,
        "idempotency_key = 'k'",
        "reports_idempotency_key_has_fingerprint_and_owner",
    ),
    (
        Stage::Accepted,
        "idempotency_key = 'k', idempotency_fingerprint = 'f', requested_by = NULL",
        "reports_idempotency_key_has_fingerprint_and_owner",
    ),
    (
        Stage::Accepted,
        "idempotency_key = '', idempotency_fingerprint = 'f'",
        "reports_idempotency_key_is_short",
    ),
    (
        Stage::Accepted,
        "expires_at = created_at",
        "reports_expire_after_creation",
    ),
    (
        Stage::Processing,
        "file_retained = true",
        "reports_only_a_finished_file_is_retained",
    ),
];

#[tokio::test]
async fn a_row_that_contradicts_itself_is_refused() {
    let database = testing::database().await;
    for (stage, change, constraint) in CONTRADICTIONS {
        let id = at_stage(&database, stage).await;

        let outcome = sqlx::query(AssertSqlSafe(format!(
            "UPDATE reports SET {change} WHERE id = $1"
        )))
        .bind(id.as_uuid())
        .execute(&database.admin_pool)
        .await;

        let error = outcome
            .unwrap_err()
            .into_database_error()
            .expect("a refusal by the database");
        assert_eq!(error.constraint(), Some(constraint), "{stage:?}: {change}");
    }
}

#[tokio::test]
async fn every_table_and_column_of_ours_is_described() {
    let database = testing::database().await;

    let silent = sqlx::query_scalar::<_, String>(
        "SELECT format('%s.%s', class.relname, attribute.attname)
         FROM pg_class AS class
         JOIN pg_attribute AS attribute ON attribute.attrelid = class.oid AND attribute.attnum >= 0
         WHERE class.oid IN ('reports'::regclass, 'outbox_messages'::regclass)
           AND col_description(class.oid, attribute.attnum) IS NULL
         UNION ALL
         SELECT relname FROM pg_class
         WHERE oid IN ('reports'::regclass, 'outbox_messages'::regclass)
           AND obj_description(oid, 'pg_class') IS NULL",
    )
    .fetch_all(&database.admin_pool)
    .await
    .unwrap();

    assert_eq!(silent, Vec::<String>::new());
}
