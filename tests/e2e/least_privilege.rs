//! What the operator and the exporters could do if somebody took them over: not more than their work.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use testkit::reports::SOON;
use testkit::{Part, Release, World, in_a_world, until};

const OPERATOR: &str = "popularity-reports-operator";

/// Something else that the Job is to be, by the path of the field, and a part of what the refusal says.
fn mutations() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        (
            "/metadata/ownerReferences",
            Value::Null,
            "belongs to a PopularityReport",
        ),
        (
            "/spec/template/spec/containers/0/image",
            json!("busybox:1"),
            "runs the image popularity-reports/exporter:",
        ),
        (
            "/spec/template/spec/containers/0/command",
            json!(["/bin/sh"]),
            "runs the image's own program",
        ),
        (
            "/spec/template/spec/serviceAccountName",
            json!(OPERATOR),
            "runs as the service account popularity-reports-exporter",
        ),
        (
            "/spec/template/spec/automountServiceAccountToken",
            json!(true),
            "has no Kubernetes token",
        ),
        (
            "/spec/template/spec/hostNetwork",
            json!(true),
            "has no part in the node's namespaces and ports",
        ),
        (
            "/spec/template/spec/hostPID",
            json!(true),
            "has no part in the node's namespaces and ports",
        ),
        (
            "/spec/template/spec/nodeName",
            json!("node"),
            "does not choose its node past the scheduler",
        ),
        (
            "/spec/template/spec/volumes",
            json!([{"name": "host", "hostPath": {"path": "/"}}]),
            "has no volumes and devices",
        ),
        (
            "/spec/template/spec/volumes",
            json!([{"name": "others", "secret": {"secretName": "operator"}}]),
            "has no volumes and devices",
        ),
        (
            "/spec/template/spec/containers/0/envFrom",
            json!([{"secretRef": {"name": "operator"}}]),
            "takes its environment from the Secret exporter alone",
        ),
        (
            "/spec/template/spec/containers/0/env",
            json!([{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "api", "key": "JWT_KEY"}}}]),
            "takes its environment from the Secret exporter alone",
        ),
        (
            "/spec/template/spec/initContainers",
            json!([{"name": "first", "image": "busybox:1"}]),
            "has one container",
        ),
        (
            "/spec/template/spec/imagePullSecrets",
            json!([{"name": "operator"}]),
            "names no registry credentials",
        ),
        (
            "/spec/template/spec/securityContext/runAsUser",
            json!(1),
            "runs as user 65532",
        ),
        (
            "/spec/template/spec/securityContext/runAsNonRoot",
            json!(false),
            "runs as user 65532",
        ),
        (
            "/spec/template/spec/securityContext/seccompProfile/type",
            json!("Unconfined"),
            "under the runtime's seccomp profile",
        ),
        (
            "/spec/template/spec/containers/0/securityContext/allowPrivilegeEscalation",
            json!(true),
            "runs without privileges on a read-only root",
        ),
        (
            "/spec/template/spec/containers/0/securityContext/readOnlyRootFilesystem",
            json!(false),
            "runs without privileges on a read-only root",
        ),
        (
            "/spec/template/spec/containers/0/securityContext/capabilities",
            json!({"drop": []}),
            "runs without privileges on a read-only root",
        ),
        (
            "/spec/template/spec/restartPolicy",
            json!("OnFailure"),
            "never starts its container again",
        ),
        ("/spec/parallelism", json!(50), "runs one Pod at a time"),
    ]
}

fn changed(job: &Value, path: &str, value: &Value) -> Value {
    let mut job = job.clone();
    let (parent, field) = path.rsplit_once('/').unwrap();
    let parent = job
        .pointer_mut(parent)
        .unwrap_or_else(|| panic!("no {parent} in the Job"));
    parent[field] = value.clone();
    job
}

/// The Job as the operator wrote it, under another name.
fn as_written(job: &Job) -> Value {
    let mut job = serde_json::to_value(job).unwrap();
    job["apiVersion"] = json!("batch/v1");
    job["kind"] = json!("Job");
    job["metadata"] = json!({
        "name": "another",
        "ownerReferences": job["metadata"]["ownerReferences"],
    });
    let object = job.as_object_mut().unwrap();
    object.remove("status");
    let spec = job["spec"].as_object_mut().unwrap();
    // these the API server adds, with the first Job's uid in them
    spec.remove("selector");
    job["spec"]["template"]["metadata"]["labels"]
        .as_object_mut()
        .unwrap()
        .retain(|label, _| !label.contains("controller-uid") && !label.contains("job-name"));
    job
}

/// Creates it, without doing so, as the operator's service account. The error is what kubectl says.
async fn create(world: &World, job: &Value) -> Result<(), String> {
    let account = format!("system:serviceaccount:{}:{OPERATOR}", world.cluster.namespace);
    let answer = world
        .cluster
        .kubectl_with_input(
            &["create", "--dry-run=server", "--as", &account, "--filename", "-"],
            &job.to_string(),
        )
        .await;
    if answer.succeeded {
        Ok(())
    } else {
        Err(answer.stderr)
    }
}

/// An exporter that is held in the middle of its work, while `test` looks at it.
async fn with_an_exporter(world: &World, test: impl AsyncFnOnce(&Release<'_>, Job)) {
    let release = Release::setup(world).install().await;
    let held = world.database.hold_table("ratings").await;
    let application = release.application();
    let id = application.accepted(&json!({})).await;
    world.row_is(id, "Processing").await;
    let job = world.cluster.jobs().await.remove(0);

    test(&release, job).await;

    held.release().await;
    application.completed(id, SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_the_operators_account_can_create_the_exporters_jobs_and_no_others() {
    in_a_world(async |world| {
        with_an_exporter(world, async |_, job| {
            let job = as_written(&job);

            // a new policy is heard of a moment after it was made
            let in_force = async || {
                let other = changed(&job, "/spec/parallelism", &json!(2));
                create(world, &other).await.err()
            };
            until("the policy is in force", Duration::from_secs(30), in_force).await;
            assert_eq!(create(world, &job).await, Ok(()), "the genuine Job");
            for (path, value, rule) in mutations() {
                let mut other = changed(&job, path, &value);
                if path.ends_with("restartPolicy") {
                    // which the API server itself refuses beside a policy for failed Pods
                    other = changed(&other, "/spec/podFailurePolicy", &Value::Null);
                }
                let refusal = create(world, &other).await.expect_err(path);
                assert!(
                    refusal.contains("ValidatingAdmissionPolicy") && refusal.contains(rule),
                    "{path} = {value}: {refusal}"
                );
            }
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_else_may_create_any_job_in_the_namespace() {
    in_a_world(async |world| {
        let _release = Release::setup(world).without(Part::Api).install().await;
        let mut job = json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "theirs"},
            "spec": {"template": {"spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "a", "image": "busybox:1"}],
            }}},
        });
        let by_us = async || create(world, &job).await.err();
        until("the policy is in force", Duration::from_secs(30), by_us).await;

        let by_them = world
            .cluster
            .kubectl_with_input(
                &["create", "--dry-run=server", "--filename", "-"],
                &job.to_string(),
            )
            .await;
        assert!(by_them.succeeded, "{}", by_them.stderr);

        // and the operator's account none in another namespace, whatever it may look like
        job["metadata"]["namespace"] = json!("default");
        let account = format!("system:serviceaccount:{}:{OPERATOR}", world.cluster.namespace);
        let elsewhere = world
            .cluster
            .kubectl(&[
                "auth",
                "can-i",
                "create",
                "jobs",
                "--namespace",
                "default",
                "--as",
                &account,
            ])
            .await;
        assert_eq!(elsewhere.stdout.trim(), "no");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exporters_pod_has_no_kubernetes_token_and_all_runs_under_restricted_pod_security() {
    in_a_world(async |world| {
        with_an_exporter(world, async |release, _| {
            let namespace: Namespace = Api::all(world.cluster.client.clone())
                .get(&world.cluster.namespace)
                .await
                .unwrap();
            assert_eq!(
                namespace.labels()["pod-security.kubernetes.io/enforce"],
                "restricted"
            );
            for part in [Part::Api, Part::Operator] {
                assert_eq!(release.pods(part).await.len(), 1, "{part}");
            }
            let pods = world.cluster.pods().await;
            let [pod] = pods.as_slice() else {
                panic!("{} exporters' Pods", pods.len());
            };
            let spec = pod.spec.as_ref().unwrap();
            assert_eq!(
                spec.service_account_name.as_deref(),
                Some("popularity-reports-exporter")
            );
            assert_eq!(spec.automount_service_account_token, Some(false));
            assert_eq!(spec.volumes.as_deref().unwrap_or_default(), []);
            for container in &spec.containers {
                assert_eq!(container.volume_mounts.as_deref().unwrap_or_default(), []);
            }
            // and in the process itself
            let process = release.process(&pod.name_any()).await;
            let root = Path::new("/proc").join(process).join("root");
            assert!(
                root.join("exporter").exists(),
                "this is the exporter's file system"
            );
            for place in ["var/run/secrets", "run/secrets"] {
                assert!(!root.join(place).exists(), "{place} is there");
            }
        })
        .await;
    })
    .await;
}
