//! A report ends, and says so.

use super::*;

#[tokio::test]
async fn a_completed_report_is_published_with_its_file() {
    let here = Here::completed().await;
    let object = object(json!({"status": launched()}));
    let job = job(json!({}));

    let (outcome, bodies) = here
        .sees(
            &object,
            [
                get_object(&object),
                get_job(&job),
                apply_status(&object),
                create_event(),
                create_event(),
            ],
        )
        .await;

    outcome.unwrap();
    let artifact = &bodies[2]["status"]["artifact"];
    assert_eq!(artifact["bytes"], 2_048);
    assert_eq!(artifact["rows"], 20);
    assert_eq!(artifact["sha256"], "ab".repeat(32));
    assert_eq!(bodies[2]["metadata"]["uid"], UID);
    assert_eq!(bodies[4]["reason"], reasons::COMPLETED);
}

#[tokio::test]
async fn a_status_that_is_no_news_is_not_written() {
    let here = Here::completed().await;
    let fresh = object(json!({"status": launched()}));
    let (_, bodies) = here
        .sees(
            &fresh,
            [
                get_object(&fresh),
                get_job(&job(json!({}))),
                apply_status(&fresh),
                create_event(),
                create_event(),
            ],
        )
        .await;
    let published = object(json!({"status": bodies[2]["status"]}));

    let (outcome, _) = here
        .sees(&published, [get_object(&published), get_job(&job(json!({})))])
        .await;

    outcome.unwrap();
}

#[tokio::test]
async fn a_job_that_failed_ends_the_report_with_the_exporters_own_words() {
    let here = Here::processing().await;
    let object = object(json!({"status": launched()}));
    let pods = json!([{
        "metadata": {"name": "p"},
        "status": {"containerStatuses": [{
            "name": "exporter", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {
                "exitCode": 65,
                "message": r#"{"reason":"StorageRejected","message":"403 on container reports"}"#,
            }},
        }]},
    }]);

    let (outcome, bodies) = here
        .sees(
            &object,
            [
                get_object(&object),
                get_job(&failed_job("PodFailurePolicy")),
                list_pods(&pods),
                apply_status(&object),
                create_event(),
                create_event(),
            ],
        )
        .await;

    outcome.unwrap();
    assert_eq!(bodies[3]["status"]["phase"], "Failed");
    assert_eq!(bodies[5]["reason"], "StorageRejected");
    assert!(
        bodies[5]["note"]
            .as_str()
            .unwrap()
            .contains("403 on container reports")
    );
}

#[tokio::test]
async fn a_job_that_was_deleted_ends_the_report() {
    let here = Here::processing().await;
    let object = object(json!({"status": launched()}));

    let (outcome, bodies) = here
        .sees(
            &object,
            [
                get_object(&object),
                get_no_job(),
                apply_status(&object),
                create_event(),
                create_event(),
            ],
        )
        .await;

    outcome.unwrap();
    assert_eq!(here.row().await.state(), State::Failed);
    assert_eq!(reason_of(&bodies[2], conditions::FINISHED), "JobDeleted");
}

#[tokio::test]
async fn a_report_that_is_cancelled_ends_before_its_job_does() {
    let here = Here::processing().await;
    let object = object(json!({"spec": {"cancel": true}, "status": launched()}));

    let (outcome, bodies) = here
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
    assert_eq!(here.row().await.state(), State::Failed);
    assert_eq!(bodies[3]["propagationPolicy"], "Foreground");
    assert_eq!(reason_of(&bodies[4], conditions::SUCCEEDED), "Cancelled");
}

#[tokio::test]
async fn a_report_that_ended_over_rest_loses_its_job() {
    let here = Here::failed(FailureReason::Cancelled).await;
    let object = object(json!({"status": launched()}));

    let (outcome, _) = here
        .sees(
            &object,
            [
                get_object(&object),
                get_job(&job(json!({}))),
                delete_job(),
                apply_status(&object),
                create_event(),
                create_event(),
            ],
        )
        .await;

    assert_eq!(outcome.unwrap(), Action::requeue(super::super::ENDING));
}

#[tokio::test]
async fn a_report_whose_time_is_over_is_deleted() {
    let here = Here::completed().await;
    let object = object(json!({"spec": {"ttlSecondsAfterFinished": 1}}));

    let (outcome, bodies) = here
        .sees(&object, [get_object(&object), get_no_job(), delete_object()])
        .await;

    outcome.unwrap();
    assert_eq!(bodies[2]["preconditions"]["uid"], UID);
}

#[tokio::test]
async fn a_conflict_is_known_as_one() {
    let here = Here::new().await;
    let object = object(json!({"metadata": {"finalizers": null}}));

    let (outcome, _) = here
        .sees(
            &object,
            [
                get_object(&object),
                get_no_job(),
                patch_object(&object).refused(409, "modified"),
            ],
        )
        .await;

    assert!(outcome.unwrap_err().is_conflict());
}

#[tokio::test]
async fn an_attempt_is_counted_in_the_status() {
    let here = Here::processing().await;
    reports::begin(&here.database.exporter_pool, report_id(), noon_and(20))
        .await
        .unwrap();
    let object = object(json!({"status": launched()}));

    let (_, bodies) = here
        .sees(
            &object,
            [
                get_object(&object),
                get_job(&job(json!({}))),
                list_pods(&json!([])),
                apply_status(&object),
                create_event(),
            ],
        )
        .await;

    assert_eq!(here.row().await.attempts, AttemptNumber::new(2));
    assert_eq!(bodies[3]["status"]["attempts"], 2);
    assert_eq!(bodies[3]["status"]["phase"], "Processing");
}
