//! More than one operator.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use serde_json::json;
use testkit::reports::SOON;
use testkit::{Api, Operator, World, in_a_world, until};

async fn leader(world: &World) -> Option<String> {
    let leases = world
        .cluster
        .api::<Lease>()
        .list(&kube::api::ListParams::default())
        .await
        .unwrap();
    leases.items.first()?.spec.as_ref()?.holder_identity.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_reports_complete_with_one_file_each_when_the_leader_is_killed_among_them() {
    in_a_world(async |world| {
        let start = async |name: &str| {
            let setup = Operator::setup(world).named(name).set("HOSTNAME", name);
            setup.set("MAX_IN_FLIGHT", "3").start_operator().await
        };
        let first = start("first").await;
        let second = start("second").await;
        let api = Api::setup(world).start_api().await;
        let application = api.application();
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
        let (leading, mut standby) = if killed.starts_with("first") {
            (first, second)
        } else {
            (second, first)
        };
        leading.program.kill().await;

        let taken_over = async || leader(world).await.filter(|holder| *holder != killed);
        until("the standby leads", Duration::from_secs(15), taken_over).await;
        for id in &ids {
            world.completed_everywhere(*id).await;
        }
        assert!(standby.program.is_running());
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
        let first = Operator::setup(world)
            .named("first")
            .set("HOSTNAME", "first")
            .start_operator()
            .await;
        let leads = async || leader(world).await;
        let before = until("the first leads", SOON, leads).await;
        let _second = Operator::setup(world)
            .named("second")
            .set("HOSTNAME", "second")
            .start_operator()
            .await;

        let status = first.program.stop().await;

        assert!(status.success(), "{status}");
        let taken_over = async || {
            leader(world)
                .await
                .filter(|holder| !holder.is_empty() && *holder != before)
        };
        until("the second leads", Duration::from_secs(5), taken_over).await;
    })
    .await;
}
