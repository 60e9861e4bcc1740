//! Exports that cannot succeed, and exporters that something happens to: each ends in the state, the reason
//! and the text that it should, and none is stuck.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, EvictParams};
use serde_json::json;
use testkit::reports::SOON;
use testkit::{Part, Release, World, in_a_world, until};
use uuid::Uuid;

/// Requests a report, and waits until its exporter is held by a lock that the test has taken before.
async fn exporting(world: &World, application: &testkit::client::Application) -> (Uuid, Pod) {
    let id = application.accepted(&json!({})).await;
    world.row_is(id, "Processing").await;
    let pods = world.cluster.pods().await;
    let pod = pods
        .into_iter()
        .find(|pod| pod.name_any().contains(&id.to_string()))
        .expect("a report that is being processed has a Pod");
    (id, pod)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permanently_refused_blob_write_fails_at_the_first_attempt() {
    in_a_world(async |world| {
        let storage = &world.environment(Part::Exporter)["AZURE_STORAGE_CONNECTION_STRING"];
        let wrong_key = storage.replace("AccountKey=", "AccountKey=AAAA");
        let release = Release::setup(world)
            .secret(Part::Exporter, "AZURE_STORAGE_CONNECTION_STRING", &wrong_key)
            .install()
            .await;
        let application = release.application();

        let id = application.accepted(&json!({})).await;

        let message = world.failed_everywhere(id, "StorageRejected", 1).await;
        assert!(message.contains("403"), "{message}");
        assert!(
            !message.contains("AccountKey") && !message.contains("sig="),
            "{message}"
        );
        let body = application.finished(id, SOON).await;
        assert_eq!(body["status"], "Failed");
        assert_eq!(body["error"]["code"], "StorageRejected");
        assert_eq!(body["error"]["message"], message);
        assert_eq!(body["error"]["retryable"], false);
        assert!(body.get("downloadUrl").is_none_or(serde_json::Value::is_null));
        let described = world
            .cluster
            .kubectl(&["get", "events", "--field-selector", "type=Warning"])
            .await;
        assert!(
            described.stdout.contains("StorageRejected"),
            "{}",
            described.stdout
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_source_table_fails_at_the_first_attempt() {
    in_a_world(async |world| {
        world.database.execute("DROP TABLE album_artists").await;
        let release = Release::setup(world).install().await;

        let id = release.application().accepted(&json!({})).await;

        let message = world.failed_everywhere(id, "CatalogRejected", 1).await;
        assert!(message.contains("album_artists"), "{message}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalogue_that_stays_away_fails_after_every_retry() {
    in_a_world(async |world| {
        // Nobody listens on port 1.
        let mut nowhere = world.platform.as_pods_see(&world.database.url(Part::Exporter));
        nowhere.set_port(Some(1)).unwrap();
        let release = Release::setup(world)
            .secret(Part::Exporter, "CATALOG_DATABASE_URL", nowhere.as_str())
            .env(Part::Exporter, "EXPORTER_PATIENCE", "1s")
            .value("exporter.backoffLimit", 1)
            .install()
            .await;

        let id = release.application().accepted(&json!({})).await;

        let message = world.failed_everywhere(id, "CatalogUnavailable", 2).await;
        assert!(!message.contains("test-only"), "no password: {message}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalogue_that_comes_back_between_two_attempts_gives_a_completed_report() {
    in_a_world(async |world| {
        let target = world.platform.as_pods_see(&world.database.url(Part::Exporter));
        let proxy = world.forwarder_to(&target).await;
        proxy.refuse();
        let catalogue = proxy.instead_of(&target);
        let release = Release::setup(world)
            .secret(Part::Exporter, "CATALOG_DATABASE_URL", catalogue.as_str())
            .env(Part::Exporter, "EXPORTER_PATIENCE", "1s")
            .install()
            .await;
        let application = release.application();

        let id = application.accepted(&json!({})).await;
        let failed_once = async || {
            let job = world.job(id).await?;
            job.status?.failed.is_some_and(|failed| failed > 0).then_some(())
        };
        until("an attempt has failed", SOON, failed_once).await;
        proxy.forward();

        application.completed(id, SOON).await;
        world.completed_everywhere(id).await;
        assert!(world.database.report(id).await.unwrap().attempts() >= 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_deleted_by_hand_ends_the_report() {
    in_a_world(async |world| {
        let release = Release::setup(world).install().await;
        let held = world.database.hold_table("ratings").await;
        let (id, _) = exporting(world, &release.application()).await;

        let job = format!("export-{id}");
        let deleted = world
            .cluster
            .kubectl(&["delete", "job", &job, "--wait=false"])
            .await;
        assert!(deleted.succeeded, "{}", deleted.stderr);

        world.failed_everywhere(id, "JobDeleted", 1).await;
        held.release().await;
        let gone = async || world.cluster.pods().await.is_empty().then_some(());
        until("its Pods are gone", SOON, gone).await;
        assert!(world.cluster.jobs().await.is_empty(), "it is not launched again");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evicted_pod_is_replaced_and_does_not_count_as_a_failure() {
    in_a_world(async |world| {
        // Not one retry is allowed, so that an eviction which counted would end the report.
        let release = Release::setup(world)
            .value("exporter.backoffLimit", 0)
            .install()
            .await;
        let held = world.database.hold_table("ratings").await;
        let (id, pod) = exporting(world, &release.application()).await;

        let pods: kube::Api<Pod> = world.cluster.api();
        pods.evict(&pod.name_any(), &EvictParams::default())
            .await
            .unwrap();
        let replaced = async || {
            let pods = world.cluster.pods().await;
            pods.iter()
                .any(|other| other.metadata.uid != pod.metadata.uid)
                .then_some(())
        };
        until("another Pod is there", SOON, replaced).await;
        held.release().await;

        world.completed_everywhere(id).await;
        assert_eq!(world.database.report(id).await.unwrap().attempts(), 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exporter_without_enough_memory_ends_the_report_and_says_so() {
    in_a_world(async |world| {
        // One row that is larger than the exporter may become.
        world
            .database
            .execute("UPDATE music_albums SET title = repeat('x', 30000000) WHERE slug = 'abbey-road-1969'")
            .await;
        let release = Release::setup(world)
            .value("exporter.resources.memory", "20Mi")
            .value("exporter.backoffLimit", 0)
            .install()
            .await;

        let id = release.application().accepted(&json!({})).await;

        let message = world.failed_everywhere(id, "ExporterOutOfMemory", 1).await;
        assert!(message.contains("memory limit"), "{message}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_over_its_deadline_ends_the_report() {
    in_a_world(async |world| {
        let _release = Release::setup(world).without(Part::Api).install().await;
        let held = world.database.hold_table("ratings").await;
        let manifest = json!({
            "apiVersion": "reports.musicalbums.dev/v1alpha1",
            "kind": "PopularityReport",
            "metadata": {"name": "slow"},
            "spec": {"activeDeadlineSeconds": 30},
        });
        let created = world
            .cluster
            .kubectl_with_input(&["create", "--filename", "-"], &manifest.to_string())
            .await;
        assert!(created.succeeded, "{}", created.stderr);
        let id = world
            .cluster
            .report("slow")
            .await
            .unwrap()
            .metadata
            .uid
            .unwrap()
            .parse()
            .unwrap();

        world.failed_everywhere(id, "DeadlineExceeded", 1).await;
        held.release().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_not_there_ends_at_the_deadline_and_says_why() {
    in_a_world(async |world| {
        let _release = Release::setup(world)
            .without(Part::Api)
            .value("images.exporter", json!({"tag": "no-such-tag"}))
            .install()
            .await;
        let manifest = json!({
            "apiVersion": "reports.musicalbums.dev/v1alpha1",
            "kind": "PopularityReport",
            "metadata": {"name": "imageless"},
            "spec": {"activeDeadlineSeconds": 30},
        });
        let created = world
            .cluster
            .kubectl_with_input(&["create", "--filename", "-"], &manifest.to_string())
            .await;
        assert!(created.succeeded, "{}", created.stderr);
        let id = world
            .cluster
            .report("imageless")
            .await
            .unwrap()
            .metadata
            .uid
            .unwrap()
            .parse()
            .unwrap();

        let message = world.failed_everywhere(id, "DeadlineExceeded", 0).await;
        assert!(message.contains("ErrImageNeverPull"), "{message}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_most_max_in_flight_exporters_live_and_the_rest_wait_in_order_and_say_so() {
    in_a_world(async |world| {
        let release = Release::setup(world)
            .value("operator.maxInFlight", 2)
            .install()
            .await;
        let application = release.application();
        let held = world.database.hold_table("ratings").await;
        let mut ids = Vec::new();
        for _ in 0..2 {
            ids.push(application.accepted(&json!({"limit": 3})).await);
        }
        for id in &ids {
            world.row_is(*id, "Processing").await;
        }
        for _ in 0..3 {
            ids.push(application.accepted(&json!({"limit": 3})).await);
        }

        for (number, id) in (1..).zip(&ids[2..]) {
            let waiting = async || {
                let conditions = world.custom_resource(*id).await?.status?.conditions;
                let launched = crds::conditions::find(&conditions, crds::conditions::LAUNCHED)?;
                let says = launched.reason == "WaitingForPlace"
                    && launched.message.contains(&format!("number {number} in line"));
                says.then_some(())
            };
            until(
                &format!("it says that it is number {number} in line"),
                SOON,
                waiting,
            )
            .await;
        }
        let jobs: Vec<Job> = world.cluster.jobs().await;
        assert_eq!(jobs.len(), 2);
        held.release().await;

        for id in ids {
            world.completed_everywhere(id).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_killed_from_outside_is_followed_by_another_attempt() {
    in_a_world(async |world| {
        let release = Release::setup(world).install().await;
        let held = world.database.hold_table("ratings").await;
        let (id, pod) = exporting(world, &release.application()).await;

        let pods: kube::Api<Pod> = world.cluster.api();
        let at_once = DeleteParams::default().grace_period(0);
        pods.delete(&pod.name_any(), &at_once).await.unwrap();

        let again = async || (world.database.report(id).await?.attempts() == 2).then_some(());
        until("a second attempt begins", SOON, again).await;
        held.release().await;
        world.completed_everywhere(id).await;
    })
    .await;
}
