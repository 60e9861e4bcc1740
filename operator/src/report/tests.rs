//! Every path of the reconcile, against a mocked API server and a real database: which requests are made,
//! in which order, and that there are no others.

use std::sync::Arc;

use blob::BlobStore;
use domain::{AttemptNumber, Failure, FailureReason, Parameters, Report, ReportId, State};
use kube::Client;
use kube::runtime::controller::Action;
use serde_json::{Value, json};
use sqlx::Executor;
use store::reports;
use store::testing::{TestDatabase, database};
use uuid::Uuid;

use crds::conditions::{self, reasons};
use crds::{PopularityReport, names};

use super::{Error, reconcile};
use crate::context::Context;
use crate::testing::*;

/// A database, and blob storage that has no file.
struct Here {
    database: TestDatabase,
    blobs: BlobStore,
}

impl Here {
    async fn new() -> Self {
        Self {
            database: database().await,
            blobs: blobs_that_answer(404, "BlobNotFound").await,
        }
    }

    /// With the row of [`object`], as an object that came first gets it.
    async fn with_row() -> Self {
        let here = Self::new().await;
        adopt(&here.database.pool).await;
        here
    }

    async fn dispatched() -> Self {
        let here = Self::with_row().await;
        reports::dispatch(&here.database.pool, report_id(), noon_and(2))
            .await
            .unwrap();
        here
    }

    async fn processing() -> Self {
        let here = Self::dispatched().await;
        reports::begin(&here.database.pool, report_id(), noon_and(4))
            .await
            .unwrap();
        here
    }

    async fn completed() -> Self {
        let here = Self::processing().await;
        reports::complete(&here.database.pool, report_id(), &artifact(), noon_and(9))
            .await
            .unwrap();
        here
    }

    async fn failed(reason: FailureReason) -> Self {
        let here = Self::processing().await;
        let failure = Failure::new(reason, "");
        reports::fail(&here.database.pool, report_id(), &failure, noon_and(9))
            .await
            .unwrap();
        here
    }

    fn context(&self, client: Client) -> Context {
        context(client, self.database.pool.clone(), self.blobs.clone())
    }

    async fn row(&self) -> Report {
        reports::get(&self.database.pool, report_id())
            .await
            .unwrap()
            .unwrap()
    }

    /// Reconciles once, and returns what the API server saw, body by body.
    async fn sees(
        &self,
        object: &PopularityReport,
        exchanges: impl IntoIterator<Item = Exchange>,
    ) -> (Result<Action, Error>, Vec<Value>) {
        let (client, seen) = api_server(exchanges);
        let context = Arc::new(self.context(client));
        let outcome = reconcile(Arc::new(object.clone()), context).await;
        (outcome, seen.bodies().await)
    }
}

fn reason_of(status: &Value, type_: &str) -> String {
    let conditions = status["status"]["conditions"].as_array().unwrap();
    let condition = conditions
        .iter()
        .find(|condition| condition["type"] == type_)
        .unwrap();
    condition["reason"].as_str().unwrap().to_owned()
}

fn deleted(over: Value) -> PopularityReport {
    let mut object = object(over);
    object.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(noon()));
    object
}

#[tokio::test]
async fn an_object_that_is_gone_is_left_alone() {
    let here = Here::new().await;
    let object = object(json!({}));

    let (outcome, _) = here
        .sees(&object, [get_object(&object).refused(404, "not found")])
        .await;

    assert_eq!(outcome.unwrap(), Action::await_change());
}

#[tokio::test]
async fn another_object_of_the_same_name_is_left_to_its_own_reconcile() {
    let here = Here::new().await;
    let other = object(json!({"metadata": {"uid": "5f0c2a4e-9999-4222-8333-444455556666"}}));

    let (outcome, _) = here.sees(&object(json!({})), [get_object(&other)]).await;

    assert_eq!(outcome.unwrap(), Action::await_change());
}

#[tokio::test]
async fn an_object_that_came_first_is_protected_before_anything_else() {
    let here = Here::new().await;
    let object = object(json!({"metadata": {"finalizers": null}}));

    let (outcome, bodies) = here
        .sees(
            &object,
            [
                get_object(&object),
                get_no_job(),
                patch_object(&object),
                apply_status(&object),
            ],
        )
        .await;

    outcome.unwrap();
    assert_eq!(bodies[2]["metadata"]["finalizers"], json!([names::FINALIZER]));
    assert_eq!(bodies[2]["metadata"]["resourceVersion"], "7");
    assert!(
        reports::get(&here.database.pool, report_id())
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn an_object_that_came_first_gets_its_row_and_its_message() {
    let here = Here::new().await;
    let object = object(json!({"spec": {"limit": 50}}));

    let (outcome, bodies) = here
        .sees(
            &object,
            [get_object(&object), get_no_job(), apply_status(&object)],
        )
        .await;

    outcome.unwrap();
    let row = here.row().await;
    assert_eq!(row.parameters.limit, Some(50));
    assert_eq!(row.custom_resource, Some(reference()));
    let backlog = store::outbox::backlog(&here.database.pool).await.unwrap();
    assert_eq!(backlog.count, 1);
    assert_eq!(bodies[2]["status"]["reportId"], UID);
    assert_eq!(bodies[2]["status"]["phase"], "Pending");
    assert_eq!(
        reason_of(&bodies[2], conditions::SUCCEEDED),
        reasons::WAITING_FOR_SERVICE_BUS
    );
}

#[tokio::test]
async fn an_object_with_parameters_that_cannot_be_is_told_so_and_gets_no_row() {
    let here = Here::new().await;
    let object = object(json!({"spec": {"limit": 0}}));

    let (outcome, bodies) = here
        .sees(
            &object,
            [
                get_object(&object),
                get_no_job(),
                apply_status(&object),
                create_event(),
            ],
        )
        .await;

    assert_eq!(outcome.unwrap(), Action::await_change());
    assert_eq!(bodies[2]["status"]["phase"], "Failed");
    assert_eq!(bodies[3]["reason"], "InvalidParameters");
    assert!(
        reports::get(&here.database.pool, report_id())
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn an_object_that_was_made_for_a_row_is_bound_to_it() {
    let here = Here::new().await;
    let id: ReportId = "0190b7c4-0000-7000-8000-000000000001".parse().unwrap();
    let new = reports::NewReport {
        id,
        outbox_id: outbox_id(),
        requested_by: Uuid::from_u128(2),
        parameters: Parameters::default(),
        idempotency: None,
        traceparent: None,
        cr_namespace: NAMESPACE.to_owned(),
        most_unfinished: 1_000,
        cr_name: names::custom_resource(id),
        now: noon(),
        expires_at: noon_and(1_000_000),
    };
    reports::request(&here.database.pool, &new).await.unwrap();
    let name = names::custom_resource(id);
    let object = object(json!({
        "metadata": {"name": name, "labels": {names::REPORT_ID_LABEL: id.to_string()}}
    }));

    let (outcome, bodies) = here
        .sees(
            &object,
            [
                get_object(&object).named(&name),
                get_no_job().of(id),
                apply_status(&object).named(&name),
            ],
        )
        .await;

    outcome.unwrap();
    let row = reports::get(&here.database.pool, id).await.unwrap().unwrap();
    assert_eq!(row.custom_resource.unwrap().uid, UID);
    assert_eq!(bodies[2]["status"]["reportId"], id.to_string());
}

#[tokio::test]
async fn a_copy_of_a_manifest_under_another_name_asks_for_a_report_of_its_own() {
    let here = Here::with_row().await;
    let copy_uid = "5f0c2a4e-9999-4222-8333-444455556666";
    let copy = object(json!({"metadata": {
        "name": "copy", "uid": copy_uid, "labels": {names::REPORT_ID_LABEL: UID},
    }}));
    let copy_id: ReportId = copy_uid.parse().unwrap();

    let (outcome, _) = here
        .sees(
            &copy,
            [
                get_object(&copy).named("copy"),
                get_no_job().of(copy_id),
                apply_status(&copy).named("copy"),
            ],
        )
        .await;

    outcome.unwrap();
    let row = reports::get(&here.database.pool, copy_id).await.unwrap();
    assert_eq!(row.unwrap().custom_resource.unwrap().name, "copy");
    assert_eq!(here.row().await.custom_resource, Some(reference()));
}

#[tokio::test]
async fn a_dispatched_report_gets_its_job() {
    let here = Here::dispatched().await;
    let object = object(json!({}));

    let (outcome, bodies) = here
        .sees(
            &object,
            [
                get_object(&object),
                get_no_job(),
                create_job(),
                apply_status(&object),
                create_event(),
            ],
        )
        .await;

    outcome.unwrap();
    assert_eq!(bodies[2]["metadata"]["name"], format!("export-{UID}"));
    assert_eq!(bodies[3]["status"]["job"]["uid"], JOB_UID);
    assert_eq!(reason_of(&bodies[3], conditions::SUCCEEDED), reasons::STARTING);
    assert_eq!(bodies[4]["reason"], reasons::JOB_CREATED);
}

#[tokio::test]
async fn a_job_that_another_leader_created_meanwhile_is_success() {
    let here = Here::dispatched().await;
    let object = object(json!({}));

    let (outcome, _) = here
        .sees(
            &object,
            [
                get_object(&object),
                get_no_job(),
                create_job().refused(409, "already exists"),
                apply_status(&object),
            ],
        )
        .await;

    outcome.unwrap();
    assert_eq!(here.row().await.state(), State::Pending);
}

#[tokio::test]
async fn a_report_without_a_place_waits_and_says_at_which() {
    let here = Here::dispatched().await;
    let object = object(json!({}));
    let (client, seen) = api_server([
        get_object(&object),
        get_no_job(),
        apply_status(&object),
        create_event(),
    ]);
    let context = here.context(client);
    let other = ReportId::new(Uuid::from_u128(9));
    context.places.hold(other, tokio::time::Instant::now());

    reconcile(Arc::new(object), Arc::new(context)).await.unwrap();

    let bodies = seen.bodies().await;
    let conditions = bodies[2]["status"]["conditions"].as_array().unwrap();
    let launched = conditions
        .iter()
        .find(|condition| condition["type"] == "Launched")
        .unwrap();
    assert_eq!(launched["reason"], reasons::WAITING_FOR_PLACE);
    assert!(launched["message"].as_str().unwrap().contains("number 1 in line"));
    assert_eq!(bodies[3]["reason"], reasons::WAITING_FOR_PLACE);
}

#[tokio::test]
async fn a_job_that_the_api_server_can_never_take_ends_the_report() {
    let here = Here::dispatched().await;
    let object = object(json!({}));

    let (outcome, bodies) = here
        .sees(
            &object,
            [
                get_object(&object),
                get_no_job(),
                create_job().refused(422, "quantities must match the regular expression"),
                apply_status(&object),
                create_event(),
            ],
        )
        .await;

    outcome.unwrap();
    assert_eq!(here.row().await.state(), State::Failed);
    assert_eq!(bodies[4]["reason"], "JobRejected");
    assert!(
        bodies[4]["note"]
            .as_str()
            .unwrap()
            .contains("quantities must match")
    );
}

#[tokio::test]
async fn a_job_that_a_quota_forbids_is_tried_again() {
    let here = Here::dispatched().await;
    let object = object(json!({}));

    let (outcome, bodies) = here
        .sees(
            &object,
            [
                get_object(&object),
                get_no_job(),
                create_job().refused(403, "exceeded quota"),
                apply_status(&object),
                create_event(),
            ],
        )
        .await;

    assert_eq!(outcome.unwrap(), Action::requeue(super::REFUSED));
    assert_eq!(here.row().await.state(), State::Pending);
    assert_eq!(
        reason_of(&bodies[3], conditions::LAUNCHED),
        reasons::JOB_FORBIDDEN
    );
}

#[tokio::test]
async fn a_job_that_stays_forbidden_for_the_whole_deadline_ends_the_report() {
    let here = Here::dispatched().await;
    // dispatched at noon and 2 s; the clock says noon and 60 s
    let object = object(json!({"spec": {"activeDeadlineSeconds": 58}}));

    let (outcome, _) = here
        .sees(
            &object,
            [
                get_object(&object),
                get_no_job(),
                create_job().refused(403, "exceeded quota"),
                apply_status(&object),
                create_event(),
            ],
        )
        .await;

    outcome.unwrap();
    assert_eq!(here.row().await.state(), State::Failed);
}

#[tokio::test]
async fn an_api_server_that_is_away_leaves_the_place_free_for_the_next_try() {
    let here = Here::dispatched().await;
    let object = object(json!({}));
    let (client, seen) = api_server([
        get_object(&object),
        get_no_job(),
        create_job().refused(500, "etcd is away"),
    ]);
    let context = Arc::new(here.context(client));

    let outcome = reconcile(Arc::new(object), Arc::clone(&context)).await;

    assert!(matches!(outcome, Err(Error::Apply(_))));
    assert_eq!(context.places.taken(), 0);
    drop(context);
    seen.bodies().await;
}

#[tokio::test]
async fn a_live_job_is_adopted_after_a_crash_before_the_status() {
    let here = Here::dispatched().await;
    let object = object(json!({}));
    let job = job(json!({}));
    let (client, seen) = api_server([
        get_object(&object),
        get_job(&job),
        list_pods(&json!([])),
        apply_status(&object),
        create_event(),
    ]);
    let context = Arc::new(here.context(client));

    reconcile(Arc::new(object), Arc::clone(&context)).await.unwrap();

    assert_eq!(context.places.taken(), 1);
    drop(context);
    assert_eq!(seen.bodies().await[3]["status"]["job"]["uid"], JOB_UID);
}

#[tokio::test]
async fn a_job_of_an_earlier_object_is_cleared_away() {
    let here = Here::dispatched().await;
    let object = object(json!({}));
    let foreign = job(json!({"metadata": {"ownerReferences": [{
        "apiVersion": "reports.musicalbums.dev/v1alpha1", "kind": "PopularityReport",
        "name": NAME, "uid": "another",
    }]}}));

    let (outcome, bodies) = here
        .sees(
            &object,
            [
                get_object(&object),
                get_job(&foreign),
                list_pods(&json!([])),
                delete_job(),
                apply_status(&object),
            ],
        )
        .await;

    assert_eq!(outcome.unwrap(), Action::requeue(super::ENDING));
    assert_eq!(bodies[3]["preconditions"]["uid"], JOB_UID);
    assert_eq!(bodies[3]["propagationPolicy"], "Background");
}

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

    assert_eq!(outcome.unwrap(), Action::requeue(super::ENDING));
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

    assert_eq!(outcome.unwrap(), Action::requeue(super::ENDING));
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

    assert_eq!(outcome.unwrap(), Action::requeue(super::ENDING));
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
    let unwanted = reports::with_unwanted_file(&here.database.pool, &[report_id()], noon_and(60)).await;
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

    assert_eq!(first.unwrap(), Action::requeue(super::REFUSED));
    second.unwrap();
    assert_eq!(bodies[3]["reason"], "BlobLeftBehind");
    assert!(here.row().await.custom_resource_deleted_at.is_some());
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
    reports::begin(&here.database.pool, report_id(), noon_and(20))
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

#[tokio::test]
async fn a_report_whose_message_was_lost_goes_on_without_it() {
    let here = Here::with_row().await;
    let mut claim = store::outbox::claim(&here.database.pool, 1, noon())
        .await
        .unwrap();
    claim
        .mark_processed(&[outbox_id()], noon_and(-900))
        .await
        .unwrap();
    claim.commit().await.unwrap();
    let object = object(json!({}));

    let (outcome, bodies) = here
        .sees(
            &object,
            [get_object(&object), get_no_job(), apply_status(&object)],
        )
        .await;

    outcome.unwrap();
    assert_eq!(here.row().await.dispatched_at, Some(noon_and(60)));
    assert_eq!(
        reason_of(&bodies[2], conditions::DISPATCHED),
        reasons::MESSAGE_RECEIVED
    );
}

#[tokio::test]
async fn a_row_that_this_version_cannot_read_ends_and_says_why() {
    let here = Here::with_row().await;
    here.database
        .owner_pool
        .execute(r#"UPDATE reports SET parameters = '{"limit": 0}'"#)
        .await
        .unwrap();
    let object = object(json!({}));

    let (outcome, bodies) = here
        .sees(
            &object,
            [
                get_object(&object),
                get_no_job(),
                apply_status(&object),
                create_event(),
            ],
        )
        .await;

    outcome.unwrap();
    assert_eq!(bodies[2]["status"]["phase"], "Failed");
    assert_eq!(bodies[3]["reason"], "InvalidParameters");
    let unfinished = reports::to_sweep(&here.database.pool, None, 10, noon())
        .await
        .unwrap();
    assert_eq!(unfinished, []);
}
