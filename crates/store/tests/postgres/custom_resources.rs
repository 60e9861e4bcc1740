use domain::{CustomResourceRef, ReportId};
use store::reports;
use store::testing;

use crate::fixtures::{Stage, a_report, at, at_stage, get, requested};

fn object(uid: &str) -> CustomResourceRef {
    CustomResourceRef {
        namespace: "team-b".to_owned(),
        name: "made-by-hand".to_owned(),
        uid: uid.to_owned(),
    }
}

#[tokio::test]
async fn an_object_is_recorded_once_and_then_nothing_is_written() {
    let database = testing::database().await;
    let id = requested(&database, &a_report()).await.id;

    let first = reports::record_cr(&database.operator_pool, id, &object("u1"), at(1))
        .await
        .unwrap();
    let again = reports::record_cr(&database.operator_pool, id, &object("u1"), at(2))
        .await
        .unwrap();

    assert_eq!((first, again), (true, false));
    let report = get(&database, id).await;
    assert_eq!(report.custom_resource, Some(object("u1")));
    assert_eq!(report.updated_at, at(1));
}

#[tokio::test]
async fn a_new_object_of_the_same_name_takes_the_place_of_the_old_one() {
    let database = testing::database().await;
    let id = requested(&database, &a_report()).await.id;
    reports::record_cr(&database.operator_pool, id, &object("u1"), at(1))
        .await
        .unwrap();

    reports::record_cr(&database.operator_pool, id, &object("u2"), at(2))
        .await
        .unwrap();
    let old_is_deleted = reports::record_cr_deleted(&database.operator_pool, id, "u1", at(3))
        .await
        .unwrap();

    assert!(
        !old_is_deleted,
        "the deletion of the old object says nothing about the new one"
    );
    let report = get(&database, id).await;
    assert_eq!(report.custom_resource, Some(object("u2")));
    assert_eq!(report.custom_resource_deleted_at, None);
}

#[tokio::test]
async fn a_deletion_is_recorded_once_and_is_final() {
    let database = testing::database().await;
    let id = requested(&database, &a_report()).await.id;
    reports::record_cr(&database.operator_pool, id, &object("u1"), at(1))
        .await
        .unwrap();

    let first = reports::record_cr_deleted(&database.operator_pool, id, "u1", at(2))
        .await
        .unwrap();
    let again = reports::record_cr_deleted(&database.operator_pool, id, "u1", at(3))
        .await
        .unwrap();
    let revived = reports::record_cr(&database.operator_pool, id, &object("u2"), at(4))
        .await
        .unwrap();

    assert_eq!((first, again, revived), (true, false, false));
    let report = get(&database, id).await;
    assert_eq!(report.custom_resource_deleted_at, Some(at(2)));
    assert_eq!(report.custom_resource, Some(object("u1")));
}

#[tokio::test]
async fn the_sweep_looks_at_reports_without_an_object_and_at_unfinished_ones() {
    let database = testing::database().await;
    let pool = &database.operator_pool;
    let recorded = async |stage| {
        let id = at_stage(&database, stage).await;
        reports::record_cr(pool, id, &object(&id.to_string()), at(200))
            .await
            .unwrap();
        id
    };
    let mut expected = vec![
        at_stage(&database, Stage::Accepted).await,
        at_stage(&database, Stage::Completed).await,
        recorded(Stage::Dispatched).await,
        recorded(Stage::Processing).await,
    ];
    expected.sort();
    recorded(Stage::Completed).await;
    recorded(Stage::FailedWhileProcessing).await;
    let deleted = recorded(Stage::Accepted).await;
    reports::record_cr_deleted(pool, deleted, &deleted.to_string(), at(300))
        .await
        .unwrap();
    let mut expired = a_report();
    expired.expires_at = at(1000);
    requested(&database, &expired).await;

    let mut walked: Vec<ReportId> = Vec::new();
    loop {
        let page = reports::to_sweep(pool, walked.last().copied(), 3, at(1000))
            .await
            .unwrap();
        let last = page.len() < 3;
        walked.extend(page.into_iter().map(|unsettled| unsettled.id));
        if last {
            break;
        }
    }

    assert_eq!(walked, expected);
}

#[tokio::test]
async fn the_sweep_knows_where_a_missing_object_belongs() {
    let database = testing::database().await;
    let new = a_report();
    requested(&database, &new).await;

    let page = reports::to_sweep(&database.operator_pool, None, 10, at(1))
        .await
        .unwrap();

    let [unsettled] = page.as_slice() else {
        panic!("{page:?}");
    };
    assert_eq!(unsettled.cr_namespace, new.cr_namespace);
    assert_eq!(unsettled.cr_name, new.cr_name);
    assert_eq!(unsettled.cr_uid, None);
}
