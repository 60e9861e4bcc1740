//! Something that the product needs is missing: its Pod is not ready, says once what is missing and what to run,
//! in a line of its log and in an Event, is not started again and again, and gets ready when it is there.

use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt as _;
use testkit::release::{container, is_ready};
use testkit::reports::SOON;
use testkit::{Part, Release, World, in_a_world, until};

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
