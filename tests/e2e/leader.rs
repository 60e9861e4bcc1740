//! More than one operator.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use serde_json::json;
use testkit::reports::SOON;
use testkit::{Part, Release, World, in_a_world, until};

async fn leader(world: &World) -> Option<String> {
    let leases = world
        .cluster
        .api::<Lease>()
        .list(&kube::api::ListParams::default())
        .await
        .unwrap();
    leases.items.first()?.spec.as_ref()?.holder_identity.clone()
}

/// The Pod whose name a holder of the Lease begins with.
async fn pod_of(release: &Release<'_>, holder: &str) -> Pod {
    let pods = release.pods(Part::Operator).await;
    let pod = pods.into_iter().find(|pod| holder.starts_with(&pod.name_any()));
    pod.expect("an operator is named after its Pod")
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_reports_complete_with_one_file_each_when_the_leader_is_killed_among_them() {
    in_a_world(async |world| {
        let release = Release::setup(world)
            .replicas(Part::Operator, 2)
            .value("operator.maxInFlight", 3)
            .install()
            .await;
        let application = release.application();
        let mut ids = Vec::new();
        for limit in 1..=10 {
            ids.push(application.accepted(&json!({"limit": limit})).await);
        }
        let under_way = async || {
            let mut completed = 0;
            for id in &ids {
                completed += usize::from(world.database.report(*id).await?.state() == "Completed");
            }
            (completed >= 2).then_some(())
        };
        until("two of ten are completed", SOON, under_way).await;

        let killed = leader(world).await.expect("somebody leads");
        let pod = pod_of(&release, &killed).await;
        release.kill(&pod.name_any()).await;

        let taken_over = async || leader(world).await.filter(|holder| *holder != killed);
        until("another process leads", Duration::from_secs(15), taken_over).await;
        for id in &ids {
            world.completed_everywhere(*id).await;
        }
        assert_eq!(
            release.restarts(Part::Operator).await,
            1,
            "only the killed one was started again"
        );
        let mut blobs = world.container.list().await;
        blobs.sort_unstable();
        let mut expected: Vec<_> = ids.iter().map(|id| format!("{id}.csv")).collect();
        expected.sort_unstable();
        assert_eq!(blobs, expected);
        assert_eq!(world.cluster.jobs().await.len(), 10);
        for id in ids {
            assert_eq!(
                world.database.report(id).await.unwrap().attempts(),
                1,
                "nobody was started twice"
            );
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stops_hands_over_at_once() {
    in_a_world(async |world| {
        let release = Release::setup(world)
            .without(Part::Api)
            .replicas(Part::Operator, 2)
            .install()
            .await;
        let leads = async || leader(world).await;
        let before = until("one of two leads", SOON, leads).await;
        let pod = pod_of(&release, &before).await;

        // As a node that is drained does: SIGTERM, and time to finish.
        let pods = world.cluster.api::<Pod>();
        pods.delete(&pod.name_any(), &DeleteParams::default())
            .await
            .unwrap();

        let taken_over = async || {
            leader(world)
                .await
                .filter(|holder| !holder.is_empty() && *holder != before)
        };
        until("the other leads", Duration::from_secs(5), taken_over).await;
    })
    .await;
}
