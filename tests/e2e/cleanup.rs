//! What is cleared away when its time has come, also where the operator has to do it by itself.

use serde_json::{Value, json};
use testkit::reports::SOON;
use testkit::{Part, Release, World, in_a_world, until};
use uuid::Uuid;

/// Makes a report by kubectl.
async fn report(world: &World, name: &str, spec: Value) -> Uuid {
    let manifest = json!({
        "apiVersion": "reports.musicalbums.dev/v1alpha1",
        "kind": "PopularityReport",
        "metadata": {"name": name},
        "spec": spec,
    });
    let applied = world
        .cluster
        .kubectl_with_input(&["apply", "--filename", "-"], &manifest.to_string())
        .await;
    assert!(applied.succeeded, "{}", applied.stderr);
    let report = world.cluster.report(name).await.unwrap();
    report.metadata.uid.unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_past_its_time_to_live_goes_with_its_job_and_file() {
    in_a_world(async |world| {
        let _release = Release::setup(world).without(Part::Api).install().await;
        let held = world.database.hold_table("ratings").await;

        let id = report(world, "brief", json!({"ttlSecondsAfterFinished": 0})).await;
        world.row_is(id, "Processing").await;
        held.release().await;

        let gone = async || {
            let none = world.cluster.reports().await.is_empty()
                && world.cluster.jobs().await.is_empty()
                && world.container.list().await.is_empty();
            none.then_some(())
        };
        until("report, Job and file are gone", SOON, gone).await;
        let row = world.database.report(id).await.unwrap();
        assert_eq!(row.state(), "Completed");
        assert!(row.has("cr_deleted_at"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_whose_job_was_deleted_without_them_go_with_the_report() {
    in_a_world(async |world| {
        let _release = Release::setup(world).without(Part::Api).install().await;
        let id = report(world, "orphaned", json!({})).await;
        world.completed_everywhere(id).await;
        let job = format!("export-{id}");
        let deleted = world
            .cluster
            .kubectl(&["delete", "job", &job, "--cascade=orphan", "--timeout=60s"])
            .await;
        assert!(deleted.succeeded, "{}", deleted.stderr);
        assert_eq!(world.cluster.pods().await.len(), 1, "the Pod is left");

        let deleted = world
            .cluster
            .kubectl(&["delete", "popularityreport", "orphaned", "--timeout=60s"])
            .await;
        assert!(deleted.succeeded, "{}", deleted.stderr);

        let cleared = async || world.cluster.pods().await.is_empty().then_some(());
        until("the Pod is gone", SOON, cleared).await;
    })
    .await;
}
