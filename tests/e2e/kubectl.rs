//! Reports by kubectl alone.

use std::time::{Duration, Instant};

use serde_json::json;
use testkit::reports::SOON;
use testkit::{Part, Release, World, in_a_world, throughout, tokens, until};
use uuid::Uuid;

/// The whole of what a person writes.
fn manifest(name: &str, spec: &serde_json::Value) -> String {
    json!({
        "apiVersion": "reports.musicalbums.dev/v1alpha1",
        "kind": "PopularityReport",
        "metadata": {"name": name},
        "spec": spec,
    })
    .to_string()
}

async fn apply(world: &World, name: &str, spec: serde_json::Value) -> Uuid {
    let answer = world
        .cluster
        .kubectl_with_input(&["apply", "--filename", "-"], &manifest(name, &spec))
        .await;
    assert!(answer.succeeded, "{}", answer.stderr);
    let report = world.cluster.report(name).await.unwrap();
    report.metadata.uid.unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_resource_alone_becomes_a_completed_report_that_an_administrator_sees_over_rest() {
    in_a_world(async |world| {
        let release = Release::setup(world).install().await;

        let id = apply(world, "weekly", json!({"limit": 20})).await;

        let report = world.completed_everywhere(id).await;
        assert_eq!(
            report.status.as_ref().unwrap().report_id,
            Some(id.to_string()),
            "its id is its uid"
        );
        let administrator = release.application_of(&tokens::a_user(Uuid::new_v4()).admin());
        let body = administrator.completed(id, SOON).await;
        assert_eq!(body["result"]["file"]["rows"], 20);
        assert!(body["downloadUrl"].is_string());
        let listed = world.cluster.kubectl(&["get", "popreport", "weekly"]).await;
        assert!(
            listed.stdout.contains("PHASE") && listed.stdout.contains("Completed"),
            "{}",
            listed.stdout
        );
        assert_eq!(world.database.outbox(id).await.len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_custom_resource_takes_job_pods_and_file_with_it() {
    in_a_world(async |world| {
        let release = Release::setup(world).install().await;
        let id = apply(world, "gone", json!({})).await;
        let kept = apply(world, "kept", json!({"deletionPolicy": "Retain"})).await;
        world.completed_everywhere(id).await;
        world.completed_everywhere(kept).await;

        let started = Instant::now();
        for name in ["gone", "kept"] {
            let deleted = world
                .cluster
                .kubectl(&["delete", "popularityreport", name, "--timeout=60s"])
                .await;
            assert!(deleted.succeeded, "{}", deleted.stderr);
        }
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "deletion ends in seconds"
        );

        let cleared = async || {
            let none = world.cluster.jobs().await.is_empty() && world.cluster.pods().await.is_empty();
            none.then_some(())
        };
        until("Jobs and Pods are gone", SOON, cleared).await;
        assert_eq!(
            world.container.list().await,
            [format!("{kept}.csv")],
            "Retain keeps the file"
        );
        // The row stays, and REST still answers.
        let administrator = release.application_of(&tokens::a_user(Uuid::new_v4()).admin());
        let body = administrator.report(id).await;
        assert!(matches!(body.status.as_u16(), 200 | 410), "{}", body.status);
        assert!(world.database.report(id).await.unwrap().has("cr_deleted_at"));
        let stays_away = async || world.cluster.reports().await.is_empty();
        throughout(
            "the sweep does not make it again",
            Duration::from_secs(5),
            stays_away,
        )
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_resource_deleted_during_its_export_stops_it() {
    in_a_world(async |world| {
        let _release = Release::setup(world).without(Part::Api).install().await;
        let held = world.database.hold_table("ratings").await;
        let id = apply(world, "running", json!({})).await;
        world.row_is(id, "Processing").await;

        let deleted = world
            .cluster
            .kubectl(&["delete", "popularityreport", "running", "--timeout=60s"])
            .await;

        assert!(deleted.succeeded, "{}", deleted.stderr);
        held.release().await;
        world.row_is(id, "Failed").await;
        let row = world.database.report(id).await.unwrap();
        assert_eq!(row.text("failure_reason").as_deref(), Some("Deleted"));
        let cleared = async || {
            let none = world.cluster.jobs().await.is_empty() && world.cluster.pods().await.is_empty();
            none.then_some(())
        };
        until("Job and Pods are gone", SOON, cleared).await;
        assert!(world.container.list().await.is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_wait_returns_on_success_and_on_failure() {
    in_a_world(async |world| {
        let _release = Release::setup(world).without(Part::Api).install().await;
        let wait = [
            "wait",
            "--for=condition=Finished",
            "--timeout=90s",
            "popularityreport",
        ];

        apply(world, "good", json!({})).await;
        let good = world.cluster.kubectl(&[&wait[..], &["good"]].concat()).await;
        world.database.execute("DROP TABLE ratings").await;
        apply(world, "bad", json!({})).await;
        let bad = world.cluster.kubectl(&[&wait[..], &["bad"]].concat()).await;

        assert!(good.succeeded, "{}", good.stderr);
        assert!(bad.succeeded, "{}", bad.stderr);
        let phase = async |name| world.cluster.report(name).await.unwrap().status.unwrap().phase;
        assert_eq!(phase("good").await, Some(crds::Phase::Completed));
        assert_eq!(phase("bad").await, Some(crds::Phase::Failed));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_in_the_spec_ends_the_report() {
    in_a_world(async |world| {
        let _release = Release::setup(world).without(Part::Api).install().await;
        let held = world.database.hold_table("ratings").await;
        let id = apply(world, "unwanted", json!({})).await;
        world.row_is(id, "Processing").await;

        let patch = [
            "patch",
            "popularityreport",
            "unwanted",
            "--type=merge",
            "--patch",
            r#"{"spec":{"cancel":true}}"#,
        ];
        let patched = world.cluster.kubectl(&patch).await;

        assert!(patched.succeeded, "{}", patched.stderr);
        world.failed_everywhere(id, "Cancelled", 1).await;
        let stopped = async || world.job(id).await.is_none().then_some(());
        until("its Job is gone", SOON, stopped).await;
        held.release().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_spec_cannot_be_changed_afterwards() {
    in_a_world(async |world| {
        apply(world, "fixed", json!({"limit": 5})).await;
        for changed in [
            json!({"limit": 6}),
            json!({}),
            json!({"limit": 5, "genre": "Jazz"}),
        ] {
            let answer = world
                .cluster
                .kubectl_with_input(&["replace", "--filename", "-"], &manifest("fixed", &changed))
                .await;
            assert!(!answer.succeeded, "{changed} was taken");
            assert!(answer.stderr.contains("cannot be changed"), "{}", answer.stderr);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_rest_nothing_is_written() {
    in_a_world(async |world| {
        let _release = Release::setup(world).without(Part::Api).install().await;
        let id = apply(world, "quiet", json!({})).await;
        world.completed_everywhere(id).await;
        let version = async || {
            let report = world.cluster.report("quiet").await.unwrap();
            let row: String = sqlx::query_scalar("SELECT xmin::text FROM reports WHERE id = $1")
                .bind(id)
                .fetch_one(&world.database.pool)
                .await
                .unwrap();
            (report.metadata.resource_version.unwrap(), row)
        };
        let settled = async || {
            let before = version().await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            (before == version().await).then_some(before)
        };
        let before = until("the report is at rest", SOON, settled).await;

        let still = async || version().await == before;
        throughout(
            "neither row nor custom resource is written",
            Duration::from_secs(10),
            still,
        )
        .await;
    })
    .await;
}
