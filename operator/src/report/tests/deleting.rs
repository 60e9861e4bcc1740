//! An object goes, and takes with it what is its own.

use super::*;

#[tokio::test]
async fn a_deletion_ends_an_unfinished_report_first() {
    let here = Here::processing().await;
    let object = deleted(json!({"status": launched()}));

    let (outcome, _) = here
        .sees(
            &object,
            [
                get_object(&object),
                get_job(&job(json!({}))),
                list_pods(&json!([])),
                delete_job(),
                apply_status(&object),
                create_event(),
                create_event(),
            ],
        )
        .await;

    outcome.unwrap();
    match here.row().await.progress {
        domain::Progress::Failed { failure, .. } => assert_eq!(failure.reason, FailureReason::Deleted),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_deletion_waits_for_a_job_that_is_on_its_way_out() {
    let here = Here::failed(FailureReason::Deleted).await;
    let object = deleted(json!({"status": launched()}));
    let going = job(json!({"metadata": {"deletionTimestamp": "2026-05-31T12:00:30Z"}}));

    let (outcome, _) = here
        .sees(
            &object,
            [
                get_object(&object),
                get_job(&going),
                list_pods(&json!([])),
                apply_status(&object),
                create_event(),
                create_event(),
            ],
        )
        .await;

    assert_eq!(outcome.unwrap(), Action::requeue(super::super::ENDING));
}

#[tokio::test]
async fn a_deletion_removes_pods_that_lost_their_job() {
    let here = Here::failed(FailureReason::Deleted).await;
    let object = deleted(json!({}));

    let (outcome, _) = here
        .sees(
            &object,
            [
                get_object(&object),
                get_no_job(),
                list_pods(&json!([{"metadata": {"name": "orphan"}}])),
                delete_pod("orphan"),
                apply_status(&object),
                create_event(),
            ],
        )
        .await;

    assert_eq!(outcome.unwrap(), Action::requeue(super::super::ENDING));
}

#[tokio::test]
async fn a_deletion_ends_with_the_file_the_row_and_the_finalizer() {
    let here = Here::completed().await;
    let object = deleted(json!({"metadata": {"finalizers": ["other/one", names::FINALIZER]}}));

    let (outcome, bodies) = here
        .sees(
            &object,
            [
                get_object(&object),
                get_no_job(),
                list_pods(&json!([])),
                patch_object(&object),
            ],
        )
        .await;

    outcome.unwrap();
    assert_eq!(bodies[3]["metadata"]["finalizers"], json!(["other/one"]));
    let row = here.row().await;
    assert_eq!(row.state(), State::Completed);
    assert_eq!(row.custom_resource_deleted_at, Some(noon_and(60)));
}

#[tokio::test]
async fn a_file_that_is_retained_is_known_to_the_sweep() {
    let here = Here::completed().await;
    let object = deleted(json!({"spec": {"deletionPolicy": "Retain"}}));

    let (outcome, _) = here
        .sees(
            &object,
            [
                get_object(&object),
                get_no_job(),
                list_pods(&json!([])),
                patch_object(&object),
            ],
        )
        .await;

    outcome.unwrap();
    let unwanted =
        reports::with_unwanted_file(&here.database.operator_pool, &[report_id()], noon_and(60)).await;
    assert_eq!(unwanted.unwrap(), []);
}

#[tokio::test]
async fn a_deletion_waits_for_blob_storage_for_five_minutes_at_most() {
    let here = Here {
        blobs: blobs_that_answer(403, "AuthorizationFailure").await,
        ..Here::completed().await
    };
    let recent = deleted(json!({}));
    let mut old = deleted(json!({}));
    old.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(noon_and(
        -240,
    )));

    let (first, _) = here
        .sees(
            &recent,
            [
                get_object(&recent),
                get_no_job(),
                list_pods(&json!([])),
                apply_status(&recent),
                create_event(),
            ],
        )
        .await;
    let (second, bodies) = here
        .sees(
            &old,
            [
                get_object(&old),
                get_no_job(),
                list_pods(&json!([])),
                create_event(),
                patch_object(&old),
            ],
        )
        .await;

    assert_eq!(first.unwrap(), Action::requeue(super::super::REFUSED));
    second.unwrap();
    assert_eq!(bodies[3]["reason"], "BlobLeftBehind");
    assert!(here.row().await.custom_resource_deleted_at.is_some());
}
