//! Upgraded, rolled back, uninstalled and installed again: no report is lost and none is made twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crds::names;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::DeleteParams;
use serde_json::json;
use testkit::client::Application;
use testkit::release::Part;
use testkit::reports::SOON;
use testkit::{Release, World, in_a_world, tokens, until};
use tokio::task::JoinHandle;
use uuid::Uuid;

/// What an application sees that asks for a report every while and polls for all of them.
struct Load {
    stop: Arc<AtomicBool>,
    polling: JoinHandle<Seen>,
}

#[derive(Default)]
struct Seen {
    accepted: Vec<Uuid>,
    /// Answers that are none, or that say that it is the service's fault.
    faults: Vec<String>,
    polls: usize,
}

impl Load {
    fn start(application: Application) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let polling = tokio::spawn(poll(application, Arc::clone(&stop)));
        Self { stop, polling }
    }

    async fn end(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.polling.await.expect("the application does not panic")
    }
}

async fn poll(application: Application, stop: Arc<AtomicBool>) -> Seen {
    const REQUEST_EVERY: Duration = Duration::from_millis(1_500);
    const POLL_EVERY: Duration = Duration::from_millis(40);
    /// However long it takes.
    const MOST: usize = 40;
    let started = Instant::now();
    let mut seen = Seen::default();
    let mut due = started;
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(POLL_EVERY).await;
        let at = started.elapsed().as_secs_f32();
        let answer = if Instant::now() >= due && seen.accepted.len() < MOST {
            due += REQUEST_EVERY;
            let answer = application.try_request(&json!({"limit": 5})).await;
            if let Some(answer) = answer.as_ref().filter(|answer| answer.status == 202) {
                seen.accepted.push(answer.report_id());
            }
            answer
        } else if let Some(id) = seen.accepted.get(seen.polls % seen.accepted.len().max(1)) {
            let path = format!("/reports/{id}");
            application.send(reqwest::Method::GET, &path, &[], None).await
        } else {
            continue;
        };
        seen.polls += 1;
        match answer {
            None => seen.faults.push(format!("after {at:.1} s: no answer")),
            Some(answer) if !answer.status.is_success() => {
                seen.faults
                    .push(format!("after {at:.1} s: {} {}", answer.status, answer.body));
            }
            Some(_) => {}
        }
    }
    seen
}

/// Every report completed at its first attempt, with one file and no more files than reports.
async fn all_are_there_once(world: &World, ids: &[Uuid]) {
    for id in ids {
        world.completed_everywhere(*id).await;
        let attempts = world.database.report(*id).await.unwrap().attempts();
        assert_eq!(attempts, 1, "nobody exported {id} twice");
    }
    let mut rows = world.database.reports().await;
    let mut expected = ids.to_vec();
    rows.sort_unstable();
    expected.sort_unstable();
    assert_eq!(
        rows, expected,
        "every report has a row, and every row was asked for"
    );
    let mut blobs = world.container.list().await;
    blobs.sort_unstable();
    let files: Vec<_> = expected.iter().map(|id| format!("{id}.csv")).collect();
    assert_eq!(blobs, files);
    assert_eq!(world.cluster.reports().await.len(), ids.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_and_a_rollback_under_load_are_not_noticed() {
    in_a_world(async |world| {
        let mut release = Release::setup(world)
            .previous_release()
            .replicas(Part::Api, 2)
            .install()
            .await;
        let load = Load::start(release.application());

        release.upgrade_to_this().await;
        release.roll_back().await;

        let seen = load.end().await;
        assert_eq!(seen.faults, [""; 0], "of {} requests", seen.polls);
        assert!(seen.accepted.len() >= 5, "{} reports", seen.accepted.len());
        all_are_there_once(world, &seen.accepted).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_that_live_when_the_release_goes_are_taken_up_when_it_comes_back() {
    in_a_world(async |world| {
        let mut release = Release::setup(world)
            .value("operator.maxInFlight", 2)
            .install()
            .await;
        let token = tokens::a_user(Uuid::new_v4());
        let application = release.application_of(&token);
        let before = application.accepted(&json!({"limit": 5})).await;
        world.completed_everywhere(before).await;
        let held = world.database.hold_table("ratings").await;
        let mut ids = vec![before];
        for _ in 0..2 {
            let id = application.accepted(&json!({"limit": 5})).await;
            world.row_is(id, "Processing").await;
            ids.push(id);
        }
        let waiting = application.accepted(&json!({"limit": 5})).await;
        let has_object = async || world.custom_resource(waiting).await.map(drop);
        until("the one that waits has its object", SOON, has_object).await;
        ids.push(waiting);

        release.uninstall().await;

        let reports = world.cluster.reports().await;
        assert_eq!(reports.len(), ids.len(), "reports stay");
        for report in &reports {
            let finalizers = report.metadata.finalizers.clone().unwrap_or_default();
            assert!(
                !finalizers.contains(&names::FINALIZER.to_owned()),
                "{finalizers:?}"
            );
        }
        assert_eq!(world.database.report(waiting).await.unwrap().state(), "Pending");
        held.release().await;
        for id in &ids[1..3] {
            // exporters need nobody
            world.row_is(*id, "Completed").await;
        }

        release.install_again().await;

        all_are_there_once(world, &ids).await;
        let answer = release.application_of(&token).report(waiting).await;
        assert_eq!(answer.body["status"], "Completed", "{}", answer.body);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_with_live_reports_can_be_deleted_after_an_uninstall() {
    in_a_world(async |world| {
        let release = Release::setup(world).install().await;
        let held = world.database.hold_table("ratings").await;
        let id = release.application().accepted(&json!({})).await;
        world.row_is(id, "Processing").await;
        release.uninstall().await;

        let namespaces: kube::Api<Namespace> = kube::Api::all(world.cluster.client.clone());
        let name = &world.cluster.namespace;
        namespaces.delete(name, &DeleteParams::default()).await.unwrap();

        let gone = async || namespaces.get_opt(name).await.unwrap().is_none().then_some(());
        until("the namespace is gone", Duration::from_secs(60), gone).await;
        held.release().await;
    })
    .await;
}
