//! Exporter Jobs in a queue. Kueue admits a Job by resuming it and takes the admission back by suspending it
//! (<https://kueue.sigs.k8s.io/docs/concepts/workload/>); the tests do both in its place.

use std::time::Duration;

use crds::{PopularityReport, conditions, names};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use testkit::reports::SOON;
use testkit::{Release, World, in_a_world, throughout, until};
use uuid::Uuid;

fn manifest(name: &str, spec: &Value) -> String {
    json!({
        "apiVersion": "reports.musicalbums.dev/v1alpha1",
        "kind": "PopularityReport",
        "metadata": {"name": name},
        "spec": spec,
    })
    .to_string()
}

async fn create(world: &World, name: &str, spec: Value) -> Uuid {
    let answer = world
        .cluster
        .kubectl_with_input(&["create", "--filename", "-"], &manifest(name, &spec))
        .await;
    assert!(answer.succeeded, "{}", answer.stderr);
    let report = world.cluster.report(name).await.unwrap();
    report.metadata.uid.unwrap().parse().unwrap()
}

async fn suspend(world: &World, id: Uuid, suspend: bool) {
    let patch = Patch::Merge(json!({"spec": {"suspend": suspend}}));
    let jobs = world.cluster.api::<Job>();
    jobs.patch(&format!("export-{id}"), &PatchParams::default(), &patch)
        .await
        .expect("a Job can be suspended and resumed");
}

async fn says(world: &World, id: Uuid, type_: &str, reason: &str) -> (PopularityReport, Condition) {
    let says = async || {
        let report = world.custom_resource(id).await?;
        let condition = conditions::find(&report.status.as_ref()?.conditions, type_)?.clone();
        (condition.reason == reason).then_some((report, condition))
    };
    until(&format!("{type_} says {reason}"), SOON, says).await
}

fn phase(report: &PopularityReport) -> crds::Phase {
    report.status.as_ref().and_then(|status| status.phase).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_waits_for_its_queue_past_its_deadline_and_in_line_with_others_of_that_queue() {
    in_a_world(async |world| {
        let release = Release::setup(world)
            .value("exporter.queueName", "nightly")
            .value("operator.maxInFlight", 1)
            .install()
            .await;
        const DEADLINE: u64 = 20;
        let first = create(world, "first", json!({"activeDeadlineSeconds": DEADLINE})).await;
        let (report, launched) = says(world, first, conditions::LAUNCHED, "WaitingForAdmission").await;
        assert_eq!(launched.status, "False");
        assert!(launched.message.contains("queue nightly"), "{}", launched.message);
        assert_eq!(phase(&report), crds::Phase::Pending);
        let job = world.job(first).await.unwrap();
        assert_eq!(job.metadata.labels.unwrap()[names::QUEUE_NAME_LABEL], "nightly");
        assert_eq!(job.spec.unwrap().suspend, Some(true));

        let second = release.application().accepted(&json!({})).await;
        let (_, launched) = says(world, second, conditions::LAUNCHED, "WaitingForPlace").await;
        assert!(
            launched.message.contains("suspended Jobs of queue nightly"),
            "{}",
            launched.message
        );
        let other = json!({"scheduling": {"queueName": "other"}});
        let third = create(world, "third", other).await;
        says(world, third, conditions::LAUNCHED, "WaitingForAdmission").await;

        let waits = async || {
            let row = world.database.report(first).await.unwrap();
            row.state() == "Pending" && world.cluster.pods().await.is_empty()
        };
        throughout(
            "it waits, and nothing of it runs",
            Duration::from_secs(DEADLINE + 2),
            waits,
        )
        .await;

        suspend(world, first, false).await;
        world.completed_everywhere(first).await;
        says(world, second, conditions::LAUNCHED, "WaitingForAdmission").await;
        for id in [second, third] {
            suspend(world, id, false).await;
        }
        for id in [first, second, third] {
            world.completed_everywhere(id).await;
            assert_eq!(world.database.report(id).await.unwrap().attempts(), 1);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_is_suspended_in_its_middle_goes_on_later_and_has_not_failed() {
    in_a_world(async |world| {
        // Not one retry is allowed, so that a suspension which counted would end the report.
        let release = Release::setup(world)
            .value("exporter.backoffLimit", 0)
            .value("operator.maxInFlight", 1)
            .install()
            .await;
        let held = world.database.hold_table("ratings").await;
        let queued = json!({"scheduling": {"queueName": "nightly"}});
        let id = create(world, "nightly", queued).await;
        says(world, id, conditions::LAUNCHED, "WaitingForAdmission").await;
        suspend(world, id, false).await;
        world.row_is(id, "Processing").await;
        says(world, id, conditions::LAUNCHED, "JobCreated").await;

        suspend(world, id, true).await;

        let (report, succeeded) = says(world, id, conditions::SUCCEEDED, "ExportSuspended").await;
        assert_eq!(succeeded.status, "Unknown");
        assert_eq!(phase(&report), crds::Phase::Processing);
        let stopped = async || world.cluster.pods().await.is_empty().then_some(());
        until("its Pod is gone", SOON, stopped).await;
        // It has given its place back, and another report gets it.
        let other = release.application().accepted(&json!({"limit": 3})).await;
        world.row_is(other, "Processing").await;
        held.release().await;
        world.completed_everywhere(other).await;

        suspend(world, id, false).await;
        world.completed_everywhere(id).await;

        assert_eq!(world.database.report(id).await.unwrap().attempts(), 2);
        let failed = world.job(id).await.unwrap().status.unwrap().failed;
        assert_eq!(failed.unwrap_or_default(), 0);
        let told = world.cluster.kubectl(&["get", "events"]).await.stdout;
        assert!(told.contains("JobResumed"), "{told}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_report_leaves_no_suspended_job_in_its_queue() {
    in_a_world(async |world| {
        let _release = Release::setup(world).install().await;
        let queued = json!({"scheduling": {"queueName": "nightly"}});
        let id = create(world, "nightly", queued).await;
        says(world, id, conditions::LAUNCHED, "WaitingForAdmission").await;

        let cancel = r#"{"spec":{"cancel":true}}"#;
        let patched = [
            "patch",
            "popreport",
            "nightly",
            "--type",
            "merge",
            "--patch",
            cancel,
        ];
        let answer = world.cluster.kubectl(&patched).await;
        assert!(answer.succeeded, "{}", answer.stderr);

        world.failed_everywhere(id, "Cancelled", 0).await;
        let gone = async || world.cluster.jobs().await.is_empty().then_some(());
        until("its Job is gone", SOON, gone).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wishes_that_kubernetes_would_not_understand_are_refused_and_wishes_cannot_be_changed() {
    in_a_world(async |world| {
        for (scheduling, says) in [
            (json!({"queueName": "Nightly"}), "must be a LocalQueue's name"),
            (json!({"queueName": "q".repeat(64)}), "may not be more than 63"),
            (
                json!({"priorityClassName": "very_high"}),
                "must be an object's name",
            ),
            (
                json!({"nodeSelector": {"disk": "s s d"}}),
                "labels' names as keys",
            ),
            (json!({"nodeSelector": {"/": "ssd"}}), "labels' names as keys"),
            (json!({"tolerations": [{"kye": "spot"}]}), "unknown field"),
            (
                json!({"affinity": {"nodeAffinity": []}}),
                "must be of type object",
            ),
        ] {
            let spec = json!({"scheduling": scheduling});
            let answer = world
                .cluster
                .kubectl_with_input(&["create", "--filename", "-"], &manifest("wishes", &spec))
                .await;
            assert!(!answer.succeeded, "{spec} is accepted");
            assert!(answer.stderr.contains(says), "{spec}: {}", answer.stderr);
        }
        create(world, "wishes", json!({"scheduling": {"queueName": "nightly"}})).await;
        for patch in [
            r#"{"spec":{"scheduling":{"queueName":"other"}}}"#,
            r#"{"spec":{"scheduling":null}}"#,
        ] {
            let patched = [
                "patch",
                "popreport",
                "wishes",
                "--type",
                "merge",
                "--patch",
                patch,
            ];
            let answer = world.cluster.kubectl(&patched).await;
            assert!(answer.stderr.contains("cannot be changed"), "{}", answer.stderr);
        }
    })
    .await;
}
