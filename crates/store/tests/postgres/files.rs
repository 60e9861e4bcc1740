use std::collections::HashSet;

use domain::{CustomResourceRef, ReportId};
use store::reports;
use store::testing;
use uuid::Uuid;

use crate::fixtures::{Stage, a_report, at, at_stage, get, requested};

async fn delete_object(pool: &sqlx::PgPool, id: ReportId) {
    let object = CustomResourceRef {
        namespace: "n".to_owned(),
        name: "r".to_owned(),
        uid: id.to_string(),
    };
    reports::record_cr(pool, id, &object, at(200)).await.unwrap();
    reports::record_cr_deleted(pool, id, &object.uid, at(201))
        .await
        .unwrap();
}

#[tokio::test]
async fn only_the_file_of_a_completed_report_is_retained_and_once() {
    let database = testing::database().await;
    let completed = at_stage(&database, Stage::Completed).await;
    let failed = at_stage(&database, Stage::FailedWhileProcessing).await;

    let first = reports::retain_file(&database.operator_pool, completed, at(300))
        .await
        .unwrap();
    let again = reports::retain_file(&database.operator_pool, completed, at(400))
        .await
        .unwrap();
    let none = reports::retain_file(&database.operator_pool, failed, at(300))
        .await
        .unwrap();

    assert_eq!((first, again, none), (true, false, false));
    assert_eq!(get(&database, completed).await.updated_at, at(300));
}

#[tokio::test]
async fn nobody_wants_the_files_of_failed_deleted_and_never_recorded_expired_reports() {
    let database = testing::database().await;
    let pool = &database.operator_pool;
    let failed = at_stage(&database, Stage::FailedWhileProcessing).await;
    let deleted = at_stage(&database, Stage::Completed).await;
    delete_object(pool, deleted).await;
    let mut short = a_report();
    short.expires_at = at(500);
    let expired = requested(&database, &short).await.id;

    let retained = at_stage(&database, Stage::Completed).await;
    reports::retain_file(pool, retained, at(150)).await.unwrap();
    delete_object(pool, retained).await;
    let completed = at_stage(&database, Stage::Completed).await;
    let processing = at_stage(&database, Stage::Processing).await;
    let of_somebody_else = ReportId::new(Uuid::new_v4());

    let asked = [
        failed,
        deleted,
        expired,
        retained,
        completed,
        processing,
        of_somebody_else,
    ];
    let unwanted = reports::with_unwanted_file(pool, &asked, at(500)).await.unwrap();

    assert_eq!(
        HashSet::from([failed, deleted, expired]),
        unwanted.into_iter().collect()
    );
}
