//! A neighbour is away when a report is asked for, and comes back.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;
use testkit::reports::SOON;
use testkit::{Api, Operator, in_a_world, throughout, until};

/// Within this time of a neighbour's return, work goes on (docs/ARCHITECTURE.md).
const WORK_GOES_ON: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn with_service_bus_down_a_report_is_accepted_and_completes_after_it_returns() {
    in_a_world(async |world| {
        let mut operator = Operator::setup(world).start_operator().await;
        let api = Api::setup(world).start_api().await;
        let application = api.application();
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
        assert!(operator.program.is_running(), "without a restart");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_kubernetes_down_a_report_is_accepted_and_completes_after_it_returns() {
    in_a_world(async |world| {
        let mut operator = Operator::setup(world).start_operator().await;
        let mut api = Api::setup(world).start_api().await;
        let application = api.application();
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
        assert!(
            operator.program.is_running() && api.program.is_running(),
            "without a restart"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_everything_but_the_database_down_reports_are_accepted_and_shown() {
    in_a_world(async |world| {
        world.cluster.proxy.refuse();
        world.broker.take_down().await;
        let storage = testkit::Proxy::start("127.0.0.1", &world.blob_address()).await;
        storage.refuse();
        let endpoint = world.blob_endpoint_by(&storage);
        let api = Api::setup(world)
            .set(
                "AZURE_STORAGE_CONNECTION_STRING",
                &world.platform.storage_at(&endpoint),
            )
            .start_api()
            .await;
        let application = api.application();

        let id = application.accepted(&json!({})).await;

        let answer = application.report(id).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.body["status"], "Pending");

        // And when they are back, an operator that starts only now does the rest.
        storage.forward();
        world.cluster.proxy.forward();
        world.broker.bring_back().await;
        let _operator = Operator::setup(world).start_operator().await;
        application.completed(id, SOON).await;
        world.completed_everywhere(id).await;
    })
    .await;
}
