//! What the API server says of every object, without making it: server-side dry run with strict field validation.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use rstest::rstest;
use serde_json::{Value, json};
use testkit::cluster::Cluster;
use testkit::platform::Platform;
use testkit::until;
use uuid::Uuid;

use crate::helm::{chart_values, everything, merged, minimal, objects, secrets};
use crate::objects::{name, pods};

/// The kinds that the bundled cluster does not know by itself, from the files that `cargo xtask test` names.
fn foreign_definitions() -> Vec<PathBuf> {
    let files = std::env::var_os("FOREIGN_DEFINITIONS")
        .expect("FOREIGN_DEFINITIONS is not set: files of definitions; `cargo xtask test` sets it");
    std::env::split_paths(&files).collect()
}

/// Accepts objects one after the other, and makes those that others ask for.
struct Server {
    cluster: Cluster,
}

impl Server {
    /// A namespace that enforces `restricted`, and the definitions.
    async fn start() -> Self {
        let platform = Platform::from_env();
        let id = Uuid::new_v4().simple().to_string()[..10].to_owned();
        let cluster = Cluster::create(&platform, &id, "admission").await;
        for file in foreign_definitions() {
            let file = file.display().to_string();
            let applied = cluster
                .kubectl(&["apply", "--server-side", "--force-conflicts", "--filename", &file])
                .await;
            assert!(applied.succeeded, "{}", applied.stderr);
            // kubectl itself fails on a definition that has no conditions yet
            let arguments = [
                "wait",
                "--for=condition=Established",
                "--timeout=30s",
                "--filename",
                &file,
            ];
            let served = async || cluster.kubectl(&arguments).await.succeeded.then_some(());
            until("the definition is served", Duration::from_secs(60), served).await;
        }
        Self { cluster }
    }

    /// What kubectl says of them; a warning counts as a refusal.
    async fn verdict(&self, objects: &[Value], how: &[&str]) -> Result<(), String> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
        let arguments = [
            &[
                "apply",
                "--server-side",
                "--force-conflicts",
                "--validate=strict",
                "--filename",
                "-",
            ],
            how,
        ]
        .concat();
        let answer = self.cluster.kubectl_with_input(&arguments, &list).await;
        if answer.succeeded && answer.stderr.is_empty() {
            Ok(())
        } else {
            Err(answer.stderr)
        }
    }

    /// The objects in this namespace instead of the one that they were rendered for.
    fn here(&self, objects: Vec<Value>) -> Vec<Value> {
        let namespace = Value::from(self.cluster.namespace.clone());
        let moved = |mut object: Value| {
            if object["metadata"]["namespace"].is_string() {
                object["metadata"]["namespace"] = namespace.clone();
            }
            object
        };
        objects.into_iter().map(moved).collect()
    }
}

#[rstest]
#[case::defaults(secrets())]
#[case::kind(merged(chart_values("kind"), json!({"api": {"service": {"nodePort": null}}})))]
#[case::aks(chart_values("aks"))]
#[case::everything(everything())]
#[case::minimal(minimal())]
#[tokio::test]
async fn every_object_is_accepted_in_a_restricted_namespace(#[case] values: Value) {
    let server = Server::start().await;
    let objects = server.here(objects(&values));
    // A Pod is refused while its service account is not there.
    let accounts: Vec<_> = objects
        .iter()
        .filter(|object| object["kind"] == "ServiceAccount")
        .cloned()
        .collect();
    assert_eq!(server.verdict(&accounts, &[]).await, Ok(()));
    // Of a Deployment and a Job only the Pods are held to `restricted`, and only once the priority class is there.
    let classless = |mut pod: Value| {
        pod["spec"]
            .as_object_mut()
            .expect("a Pod has a specification")
            .remove("priorityClassName");
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        pod["metadata"]["name"] = json!("pod");
        pod["metadata"]["namespace"] = json!(server.cluster.namespace);
        pod
    };
    let pods: Vec<_> = pods(&objects).cloned().map(classless).collect();
    let dry_run = ["--dry-run=server"];

    let verdict = server.verdict(&objects, &dry_run).await;
    let mut of_pods = Vec::new();
    for pod in &pods {
        of_pods.push(server.verdict(std::slice::from_ref(pod), &dry_run).await);
    }

    server.cluster.delete().await;
    assert_eq!(verdict, Ok(()));
    assert!(of_pods.iter().all(Result::is_ok), "{of_pods:?}");
    assert!(!pods.is_empty());
}

/// A check that accepts everything would be of no worth.
#[tokio::test]
async fn a_field_that_does_not_exist_and_a_pod_that_is_not_restricted_are_refused() {
    let server = Server::start().await;
    let mut misspelt = objects(&everything());
    misspelt.retain(|object| object["kind"] != "CustomResourceDefinition");
    let mut refused = BTreeSet::new();

    for mut object in server.here(misspelt) {
        let kind = object["kind"].as_str().expect("an object has a kind").to_owned();
        object["spce"] = json!({});
        if server
            .verdict(&[object.clone()], &["--dry-run=server"])
            .await
            .is_err()
        {
            refused.insert(kind);
        } else {
            panic!("{kind} {} is accepted with spce", name(&object));
        }
    }
    let root = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "root", "namespace": server.cluster.namespace},
        "spec": {"containers": [{"name": "a", "image": "a"}]},
    });
    let of_root = server.verdict(&[root], &["--dry-run=server"]).await;

    server.cluster.delete().await;
    assert!(
        refused.contains("HTTPRoute") && refused.contains("PrometheusRule"),
        "{refused:?}"
    );
    assert!(of_root.is_err_and(|error| error.contains("restricted")));
}
