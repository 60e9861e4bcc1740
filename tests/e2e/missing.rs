//! Something that the product needs is missing: its Pod is not ready, says once what is missing and what to run,
//! in a line of its log and in an Event, is not started again and again, and gets ready when it is there.

use std::time::Duration;

use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt as _;
use serde_json::json;
use testkit::release::{Setup, container, is_ready};
use testkit::reports::SOON;
use testkit::{Part, Release, World, in_a_world, throughout, until};

/// What the programs write when something is missing, whatever it is.
const MISSING: &str = "something that is needed is missing";

/// The Warnings about a part's Pods, and what each says.
async fn warnings(world: &World, release: &Release<'_>, part: Part) -> Vec<(String, String)> {
    let pods = release.pods(part).await;
    let about = |event: &Event| {
        let name = event.involved_object.name.as_deref();
        pods.iter().any(|pod| Some(&*pod.name_any()) == name)
    };
    let events = world.cluster.events().await;
    let warnings = events
        .into_iter()
        .filter(|event| event.type_.as_deref() == Some("Warning") && about(event));
    warnings
        .map(|event| {
            (
                event.reason.unwrap_or_default(),
                event.message.unwrap_or_default(),
            )
        })
        .collect()
}

/// Installs it, and checks that the part tells what is missing in words that hold each of `words`, once.
async fn is_missing<'a>(world: &World, part: Part, setup: Setup<'a>, words: &[&str]) -> Release<'a> {
    let release = setup.install_without_waiting().await;
    let told = async || {
        let running = release.pods(part).await;
        running
            .iter()
            .any(|pod| {
                container(pod)
                    .is_some_and(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()))
            })
            .then_some(())?;
        let log = release.log(part).await;
        let line = log.lines().find(|line| line.contains(MISSING))?.to_owned();
        Some(line)
    };
    let line = until("the log tells what is missing", SOON, told).await;
    for word in words {
        assert!(line.contains(word), "{word}: {line}");
    }
    assert!(line.contains("operator doctor"), "{line}");
    let event = async || {
        let warnings = warnings(world, &release, part).await;
        warnings
            .into_iter()
            .find(|(reason, _)| reason == "SomethingMissing")
    };
    let (_, note) = until("an Event tells what is missing", SOON, event).await;
    for word in words {
        assert!(note.contains(word), "{word}: {note}");
    }

    let waits = async || {
        let pods = release.pods(part).await;
        let log = release.log(part).await;
        let lines = log.lines().filter(|line| line.contains(MISSING)).count();
        let events = warnings(world, &release, part).await;
        let events = events
            .iter()
            .filter(|(reason, _)| reason == "SomethingMissing")
            .count();
        !pods.iter().any(is_ready) && release.restarts(part).await == 0 && (lines, events) == (1, 1)
    };
    let span = Duration::from_secs(8);
    throughout("not ready, not started again, and told once", span, waits).await;
    release
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_secret_a_container_is_not_started_and_the_kubelet_names_the_secret() {
    in_a_world(async |world| {
        let release = Release::setup(world)
            .without(Part::Api)
            .without_secret(Part::Operator)
            .install_without_waiting()
            .await;

        let named = async || {
            let warnings = warnings(world, &release, Part::Operator).await;
            let named = warnings
                .iter()
                .any(|(_, note)| note.contains("secret \"operator\" not found"));
            named.then_some(())
        };
        until("an Event names the Secret", SOON, named).await;
        let pods = release.pods(Part::Operator).await;
        assert!(!pods.iter().any(is_ready));
        let held = async || {
            let pods = release.pods(Part::Operator).await;
            let state = container(pods.first()?)?.state.clone()?;
            (state.waiting?.reason? == "CreateContainerConfigError").then_some(())
        };
        until("the container waits for its configuration", SOON, held).await;
        assert_eq!(release.restarts(Part::Operator).await, 0);

        release.make_secret(Part::Operator).await;
        release.ready().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_queue_the_operator_waits_and_names_it() {
    in_a_world(async |world| {
        let setup = Release::setup(world)
            .without(Part::Api)
            .value("serviceBus", json!({"queue": "another-queue"}));

        let release = is_missing(world, Part::Operator, setup, &["another-queue"]).await;

        world.broker.add_queue("another-queue").await;
        release.ready().await;
        assert_eq!(release.restarts(Part::Operator).await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_container_the_api_waits_and_names_it() {
    in_a_world(async |world| {
        let container = format!("later-{}", world.id);
        let setup = Release::setup(world)
            .without(Part::Operator)
            .value("blob.container", container.as_str());

        let release = is_missing(world, Part::Api, setup, &[&container]).await;

        testkit::blob::Container::make(&world.platform, &container).await;
        release.ready().await;
        assert_eq!(release.restarts(Part::Api).await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_reports_tables_the_api_waits_and_names_the_migrations() {
    in_a_world(async |world| {
        let setup = Release::setup(world)
            .without(Part::Operator)
            .value("migrations.enabled", false);

        let mut release = is_missing(world, Part::Api, setup, &["reports", "migrate"]).await;

        release.upgrade("migrations.enabled", true).await;
        release.ready().await;
        assert_eq!(release.restarts(Part::Api).await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_right_on_a_table_the_operator_waits_and_names_the_role() {
    in_a_world(async |world| {
        let login = world.database.url(Part::Operator);
        let login = login.username();
        let revoke = format!("REVOKE popularity_reports_operator FROM {login}");
        world.database.execute(&revoke).await;
        let setup = Release::setup(world).without(Part::Api);

        let release = is_missing(world, Part::Operator, setup, &["popularity_reports_operator"]).await;

        let grant = format!("GRANT popularity_reports_operator TO {login}");
        world.database.execute(&grant).await;
        release.ready().await;
        assert_eq!(release.restarts(Part::Operator).await, 0);
    })
    .await;
}
