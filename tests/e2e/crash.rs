//! The crash points a to h of docs/ARCHITECTURE.md: the process is aborted at that very place, and what
//! should follow follows. The container stays down until the test has looked.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use testkit::client::{Application, Response};
use testkit::reports::SOON;
use testkit::{Part, Release, in_a_world, throughout, until};

async fn post(application: &Application, key: &str) -> Option<Response> {
    let headers = [("idempotency-key", key)];
    let body = json!({"limit": 4});
    application
        .send(Method::POST, "/reports/popularity", &headers, Some(&body))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_an_api_killed_before_the_commit_leaves_nothing_and_the_retry_makes_one_report() {
    in_a_world(async |world| {
        let release = Release::setup(world)
            .crash_at(Part::Api, "api.before-commit")
            .install()
            .await;
        let user = testkit::tokens::a_user(uuid::Uuid::new_v4());

        let answer = post(&release.application_of(&user), "a").await;
        assert!(answer.is_none(), "{answer:?}");
        release.crashed(Part::Api, SOON).await;
        assert!(world.database.reports().await.is_empty());

        release.start_again(Part::Api).await;
        let application = release.application_of(&user);
        let answer = post(&application, "a").await.unwrap();
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.body);
        let id = answer.report_id();
        application.completed(id, SOON).await;
        assert_eq!(post(&application, "a").await.unwrap().report_id(), id);
        assert_eq!(world.database.reports().await, [id]);
        world.completed_everywhere(id).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b_an_api_killed_after_the_commit_loses_no_report_and_the_retry_finds_it() {
    in_a_world(async |world| {
        let release = Release::setup(world)
            .without(Part::Operator)
            .crash_at(Part::Api, "api.after-commit")
            .install()
            .await;
        let user = testkit::tokens::a_user(uuid::Uuid::new_v4());

        let answer = post(&release.application_of(&user), "b").await;
        assert!(answer.is_none(), "{answer:?}");
        release.crashed(Part::Api, SOON).await;
        let ids = world.database.reports().await;
        assert_eq!(ids.len(), 1);
        assert!(
            world.cluster.reports().await.is_empty(),
            "it died before the custom resource"
        );

        release.scale(Part::Operator, 1).await;
        world.completed_everywhere(ids[0]).await;
        release.start_again(Part::Api).await;
        let application = release.application_of(&user);
        assert_eq!(post(&application, "b").await.unwrap().report_id(), ids[0]);
        assert_eq!(world.database.reports().await, ids);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c_a_relay_killed_after_the_broker_accepted_sends_again_and_one_job_comes_of_it() {
    in_a_world(async |world| {
        let release = Release::setup(world)
            .crash_at(Part::Operator, "relay.after-accept")
            .install()
            .await;
        let application = release.application();

        let id = application.accepted(&json!({})).await;
        release.crashed(Part::Operator, SOON).await;
        let messages = world.database.outbox(id).await;
        assert!(messages[0]["processed_at"].is_null(), "not marked: {messages:?}");
        assert_eq!(world.broker.accepted().await, 1, "but accepted");

        release.start_again(Part::Operator).await;
        world.completed_everywhere(id).await;
        assert_eq!(world.database.report(id).await.unwrap().attempts(), 1);
        assert_eq!(
            world.broker.accepted().await,
            2,
            "the same message was sent again"
        );
        let drained = async || (world.broker.waiting().await == 0).then_some(());
        until("the queue is empty", SOON, drained).await;
        assert_eq!(world.broker.dead_lettered().await, 0);
        assert_eq!(world.cluster.jobs().await.len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d_a_consumer_killed_after_the_dispatch_gets_the_message_again_and_completes_it() {
    in_a_world(async |world| {
        let release = Release::setup(world)
            .crash_at(Part::Operator, "consumer.after-dispatch")
            .install()
            .await;
        let application = release.application();

        let id = application.accepted(&json!({})).await;
        release.crashed(Part::Operator, SOON).await;
        assert!(world.database.report(id).await.unwrap().has("dispatched_at"));
        assert_eq!(world.broker.waiting().await, 1, "the message was not completed");

        release.start_again(Part::Operator).await;
        world.completed_everywhere(id).await;
        let drained = async || (world.broker.waiting().await == 0).then_some(());
        until("the message is delivered again and completed", SOON, drained).await;
        assert_eq!(world.broker.dead_lettered().await, 0);
        assert_eq!(world.database.report(id).await.unwrap().attempts(), 1);
        assert_eq!(world.cluster.jobs().await.len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e_a_controller_killed_after_the_job_adopts_it() {
    in_a_world(async |world| {
        let release = Release::setup(world)
            .crash_at(Part::Operator, "controller.after-job")
            .install()
            .await;
        let application = release.application();

        let id = application.accepted(&json!({})).await;
        release.crashed(Part::Operator, SOON).await;
        let job = world.job(id).await.expect("it died after the Job");
        let status = world.custom_resource(id).await.unwrap().status;
        assert!(
            status.is_none_or(|status| status.job.is_none()),
            "before the status"
        );

        release.start_again(Part::Operator).await;
        let report = world.completed_everywhere(id).await;
        assert_eq!(
            report.status.unwrap().job.unwrap().uid,
            job.metadata.uid.unwrap(),
            "the same Job"
        );
        assert_eq!(world.cluster.jobs().await.len(), 1);
        assert_eq!(world.database.report(id).await.unwrap().attempts(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f_an_exporter_killed_while_uploading_leaves_nothing_visible_and_the_next_attempt_starts_clean() {
    in_a_world(async |world| {
        let release = Release::setup(world)
            .exporter_crashes_at("exporter.uploading.attempt-1")
            .install()
            .await;
        let application = release.application();

        let id = application.accepted(&json!({})).await;
        let failed_once = async || {
            let status = world.job(id).await?.status?;
            status.failed.is_some_and(|failed| failed == 1).then_some(())
        };
        until("the first attempt has failed", SOON, failed_once).await;
        assert!(world.container.list().await.is_empty(), "nothing is visible");
        let polled = application.report(id).await.body;
        assert_eq!(polled["status"], "Processing");

        world.completed_everywhere(id).await;
        assert_eq!(world.database.report(id).await.unwrap().attempts(), 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g_an_exporter_killed_after_the_commit_is_followed_by_one_that_adopts_the_file() {
    in_a_world(async |world| {
        let release = Release::setup(world)
            .exporter_crashes_at("exporter.after-commit.attempt-1")
            .install()
            .await;
        let application = release.application();

        let id = application.accepted(&json!({})).await;
        let name = format!("{id}.csv");
        let committed = async || world.container.facts(&name).await;
        let first = until("the file is committed", SOON, committed).await;
        assert_eq!(world.database.report(id).await.unwrap().state(), "Processing");
        // What the first attempt saw must be what the report says, so the catalogue changes in between.
        world.database.execute("UPDATE ratings SET rating = 1").await;

        world.completed_everywhere(id).await;
        let second = world.container.facts(&name).await.unwrap();
        assert_eq!(first.etag, second.etag, "the same file, not another one");
        let row = world.database.report(id).await.unwrap();
        assert_eq!(row.attempts(), 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h_an_operator_killed_before_the_final_status_publishes_it_after_its_restart() {
    in_a_world(async |world| {
        let release = Release::setup(world)
            .crash_at(Part::Operator, "controller.before-final-status")
            .install()
            .await;
        let application = release.application();

        let id = application.accepted(&json!({})).await;
        release.crashed(Part::Operator, SOON).await;
        world.row_is(id, "Completed").await;
        let phase = |report: crds::PopularityReport| report.status.and_then(|status| status.phase);
        let stays = async || {
            let phase = phase(world.custom_resource(id).await.unwrap());
            phase != Some(crds::Phase::Completed)
        };
        throughout(
            "the custom resource does not know yet",
            Duration::from_secs(2),
            stays,
        )
        .await;
        assert_eq!(
            application.report(id).await.body["status"],
            Value::from("Completed"),
            "REST does"
        );

        release.start_again(Part::Operator).await;
        world.completed_everywhere(id).await;
    })
    .await;
}
