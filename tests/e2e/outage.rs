//! A neighbour is away when a report is asked for, and comes back.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;
use testkit::reports::SOON;
use testkit::{Part, Release, in_a_world, throughout, until};

/// Within this time of a neighbour's return, work goes on (docs/ARCHITECTURE.md).
const WORK_GOES_ON: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn with_service_bus_down_a_report_is_accepted_and_completes_after_it_returns() {
    in_a_world(async |world| {
        let release = Release::setup(world).install().await;
        let application = release.application();
        // Once through, so that the operator's links are there to be broken.
        let before = application.accepted(&json!({"limit": 1})).await;
        application.completed(before, SOON).await;
        world.broker.take_down().await;

        let id = application.accepted(&json!({"limit": 10})).await;

        let waits = async || {
            let messages = world.database.outbox(id).await;
            messages.len() == 1 && messages[0]["processed_at"].is_null()
        };
        throughout("the message waits in the outbox", Duration::from_secs(5), waits).await;
        assert_eq!(application.report(id).await.body["status"], "Pending");

        world.broker.bring_back().await;
        let relayed = async || (!world.database.outbox(id).await[0]["processed_at"].is_null()).then_some(());
        until("the message is relayed", WORK_GOES_ON, relayed).await;
        application.completed(id, SOON).await;
        world.completed_everywhere(id).await;
        assert_eq!(release.restarts(Part::Operator).await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_kubernetes_down_a_report_is_accepted_and_completes_after_it_returns() {
    in_a_world(async |world| {
        let release = Release::setup(world).by_the_forwarder().install().await;
        let application = release.application();
        let before = application.accepted(&json!({"limit": 1})).await;
        application.completed(before, SOON).await;
        world.cluster.proxy.refuse();

        let id = application.accepted(&json!({"limit": 10})).await;

        let pending = async || {
            let answer = application.report(id).await;
            answer.status == StatusCode::OK && answer.body["status"] == "Pending"
        };
        throughout("REST says Pending", Duration::from_secs(5), pending).await;
        assert!(world.custom_resource(id).await.is_none());

        world.cluster.proxy.forward();
        let created = async || world.custom_resource(id).await;
        until("the custom resource is there", WORK_GOES_ON, created).await;
        application.completed(id, SOON).await;
        world.completed_everywhere(id).await;
        assert_eq!(release.restarts(Part::Operator).await, 0);
        assert_eq!(release.restarts(Part::Api).await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_everything_but_the_database_down_reports_are_accepted_and_shown() {
    in_a_world(async |world| {
        world.cluster.proxy.refuse();
        world.broker.take_down().await;
        let storage = world.forwarder_to(&world.platform.blob_endpoint()).await;
        storage.refuse();
        let release = Release::setup(world)
            .by_the_forwarder()
            .secret(
                Part::Api,
                "AZURE_STORAGE_CONNECTION_STRING",
                &world.storage_by(&storage),
            )
            .without(Part::Operator)
            .install()
            .await;
        let application = release.application();

        let id = application.accepted(&json!({})).await;

        let answer = application.report(id).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.body["status"], "Pending");

        // And when they are back, an operator that starts only now does the rest.
        storage.forward();
        world.cluster.proxy.forward();
        world.broker.bring_back().await;
        release.scale(Part::Operator, 1).await;
        application.completed(id, SOON).await;
        world.completed_everywhere(id).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_blob_storage_down_an_export_waits_and_completes_after_it_returns() {
    in_a_world(async |world| {
        let storage = world.forwarder_to(&world.platform.blob_endpoint()).await;
        storage.refuse();
        let release = Release::setup(world)
            .secret(
                Part::Exporter,
                "AZURE_STORAGE_CONNECTION_STRING",
                &world.storage_by(&storage),
            )
            .install()
            .await;
        let application = release.application();

        let id = application.accepted(&json!({"limit": 10})).await;
        world.row_is(id, "Processing").await;
        let waits = async || application.report(id).await.body["status"] == "Processing";
        throughout("the export waits", Duration::from_secs(5), waits).await;

        storage.forward();
        application.completed(id, SOON).await;
        world.completed_everywhere(id).await;
        assert_eq!(
            world.database.report(id).await.unwrap().attempts(),
            1,
            "the attempt has waited"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_postgresql_down_a_request_is_told_to_come_again_and_work_goes_on_after_it_returns() {
    in_a_world(async |world| {
        let database = world.forwarder_to(&world.database.url(Part::Api)).await;
        let by_proxy = |part| database.instead_of(&world.database.url(part)).to_string();
        let release = Release::setup(world)
            .secret(Part::Api, "REPORTS_DATABASE_URL", &by_proxy(Part::Api))
            .secret(Part::Operator, "REPORTS_DATABASE_URL", &by_proxy(Part::Operator))
            .install()
            .await;
        let application = release.application();
        let held = world.database.hold_table("ratings").await;
        let under_way = application.accepted(&json!({"limit": 10})).await;
        world.row_is(under_way, "Processing").await;

        database.refuse();
        let refused = application.request(&json!({})).await;
        assert_eq!(
            refused.status,
            StatusCode::SERVICE_UNAVAILABLE,
            "{}",
            refused.body
        );
        assert!(refused.headers.contains_key("retry-after"));
        assert_eq!(refused.headers["content-type"], "application/problem+json");
        assert_eq!(
            world.database.reports().await,
            [under_way],
            "nothing is half-written"
        );
        // The exporter goes its own way to the database and ends meanwhile.
        held.release().await;
        world.row_is(under_way, "Completed").await;

        database.forward();
        let accepted = async || {
            // A Pod that was not ready is out of the Service for a moment longer.
            let answer = application.try_request(&json!({"limit": 2})).await?;
            (answer.status == StatusCode::ACCEPTED).then(|| answer.report_id())
        };
        let id = until("requests are accepted again", WORK_GOES_ON, accepted).await;
        for id in [under_way, id] {
            application.completed(id, SOON).await;
            world.completed_everywhere(id).await;
        }
        assert_eq!(release.restarts(Part::Operator).await, 0);
        assert_eq!(release.restarts(Part::Api).await, 0);
    })
    .await;
}
