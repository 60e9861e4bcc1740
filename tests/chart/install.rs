//! The chart installed for real, in a namespace that enforces `restricted`: it gets ready, tests itself, is upgraded, and goes
//! without a trace.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use regex::Regex;
use serde_json::{Value, json};
use testkit::{Part, World, in_a_world, until};

use crate::helm::{chart, everything, merged, objects};
use crate::objects::{name, text};

/// The release's name.
const RELEASE: &str = "popularity-reports";
/// What stays.
const DEFINITION: &str = "popularityreports.reports.musicalbums.dev";
const PARTS: [Part; 4] = [Part::Api, Part::Operator, Part::Exporter, Part::Migrations];

fn values(world: &World) -> Value {
    let small = json!({"requests": {"cpu": "10m", "memory": "32Mi"}});
    json!({
        "images": {"tag": world.platform.image_tag, "pullPolicy": "Never"},
        "secrets": {
            "api": {"name": "api"},
            "operator": {"name": "operator"},
            "exporter": {"name": "exporter"},
            "migrations": {"name": "migrations"},
        },
        "blob": {"container": world.container.name},
        "api": {"resources": small},
        "operator": {"resources": small},
        "exporter": {"resources": {"cpu": "10m", "memory": "128Mi"}},
        "migrations": {"resources": small},
        "tests": {"resources": small},
    })
}

/// Runs Helm on the chart, and says how long it took.
async fn helm(world: &World, verb: &str, arguments: &[&str], values: &Value) {
    let began = Instant::now();
    let chart = chart().display().to_string();
    let arguments = [
        &[
            verb,
            RELEASE,
            &chart,
            "--values",
            "-",
            "--wait",
            "--timeout",
            "180s",
        ],
        arguments,
    ]
    .concat();
    let answer = world.cluster.helm(&arguments, &values.to_string()).await;
    assert!(answer.succeeded, "helm {verb}: {}", answer.stderr);
    println!("helm {verb} --wait: {:.1} s", began.elapsed().as_secs_f64());
}

async fn kubectl(world: &World, arguments: &[&str]) -> String {
    let answer = world.cluster.kubectl(arguments).await;
    assert!(
        answer.succeeded,
        "kubectl {}: {}",
        arguments.join(" "),
        answer.stderr
    );
    answer.stdout
}

#[tokio::test]
async fn it_is_installed_tests_itself_is_upgraded_and_leaves_nothing() {
    in_a_world(async |world| {
        for part in PARTS {
            world
                .cluster
                .put_secret(part.name(), world.environment(part))
                .await;
        }
        let values = values(world);

        // The tests' definition is taken over, and stays.
        helm(world, "install", &["--take-ownership"], &values).await;
        the_admission_policy_is_sound(world).await;

        let began = Instant::now();
        let tested = world
            .cluster
            .helm(&["test", RELEASE, "--timeout", "240s"], "")
            .await;
        assert!(tested.succeeded, "{}{}", tested.stdout, tested.stderr);
        println!("helm test: {:.1} s", began.elapsed().as_secs_f64());
        // Helm copies what the Pods have said before it removes them
        for said in ["kubernetes rights", "sha256"] {
            assert!(tested.stderr.contains(said), "{}", tested.stderr);
        }
        what_is_watched_is_counted(world).await;

        let values = merged(values, json!({"api": {"logLevel": "debug"}}));
        helm(world, "upgrade", &[], &values).await;

        kubectl(world, &["delete", "popularityreports", "--all", "--timeout=60s"]).await;
        let removed = world.cluster.helm(&["uninstall", RELEASE, "--wait"], "").await;
        assert!(removed.succeeded, "{}", removed.stderr);
        // Pods go a moment after what they belong to.
        let gone = async || what_is_left(world).await.is_empty().then_some(());
        until("nothing of the release is left", Duration::from_secs(60), gone).await;
        kubectl(world, &["get", "customresourcedefinition", DEFINITION]).await;
    })
    .await;
}

/// All objects of the release but the definition, whatever their kind, as kind and name.
async fn what_is_left(world: &World) -> BTreeSet<String> {
    let kinds = kubectl(world, &["api-resources", "--verbs=list", "--output=name"]).await;
    let kinds = kinds.lines().collect::<Vec<_>>().join(",");
    let release = format!("app.kubernetes.io/instance={RELEASE}");
    let found = kubectl(world, &["get", &kinds, "--selector", &release, "--output=json"]).await;
    let found: Value = serde_json::from_str(&found).expect("kubectl prints JSON");
    let namespace = world.cluster.namespace.as_str();
    let found = found["items"].as_array().expect("a list has items").iter();
    found
        // Releases of other tests have the same name, in namespaces of their own.
        .filter(|object| object["metadata"]["namespace"] == namespace || name(object).starts_with(namespace))
        .map(|object| format!("{} {}", text(&object["kind"]), name(object)))
        .collect()
}

/// The API server has nothing to say of the types in its expressions.
async fn the_admission_policy_is_sound(world: &World) {
    let policy = format!("{}-{RELEASE}-jobs", world.cluster.namespace);
    let checked = async || {
        let path = "--output=jsonpath={.status}";
        let status = kubectl(world, &["get", "validatingadmissionpolicy", &policy, path]).await;
        let status: Value = serde_json::from_str(&status).ok()?;
        status.get("observedGeneration").is_some().then_some(status)
    };
    let status = until("the policy is checked", Duration::from_secs(30), checked).await;
    assert_eq!(
        status["typeChecking"]["expressionWarnings"],
        Value::Null,
        "{status}"
    );
}

/// Alerts and dashboard ask only for what the programs count.
async fn what_is_watched_is_counted(world: &World) {
    let mut counted = BTreeSet::new();
    for (part, port) in [("api", 8080), ("operator", 8081)] {
        let selector = format!("app.kubernetes.io/component={part}");
        let path = "--output=jsonpath={.items[*].status.podIP}";
        let addresses = kubectl(world, &["get", "pods", "--selector", &selector, path]).await;
        for address in addresses.split(' ') {
            let pod = format!("http://{address}:{port}");
            // what is counted of refused tokens is not there before the first
            let refused = reqwest::get(format!("{pod}/reports/none")).await;
            assert!(refused.is_ok_and(|answer| answer.status().is_client_error()));
            let metrics = reqwest::get(format!("{pod}/metrics"))
                .await
                .and_then(reqwest::Response::error_for_status)
                .expect("a Pod that is ready shows its metrics");
            for line in metrics.text().await.expect("metrics are text").lines() {
                if let Some(named) = line.strip_prefix("# TYPE ") {
                    let mut words = named.split(' ').map(str::to_owned);
                    counted.insert((words.next(), words.next()));
                }
            }
        }
    }
    let names = Regex::new(r"\b(?:api|popularity_reports)_[a-z_]+\b").expect("a pattern");
    let watched: BTreeSet<_> = objects(&everything())
        .iter()
        .filter(|object| {
            object["kind"] == "PrometheusRule" || !text(&object["data"]["popularity-reports.json"]).is_empty()
        })
        .map(ToString::to_string)
        .flat_map(|text| {
            names
                .find_iter(&text)
                .map(|name| name.as_str().to_owned())
                .collect::<Vec<_>>()
        })
        .collect();

    assert!(watched.len() > 8, "{watched:?}");
    for name in watched {
        let is_counted = [("_total", "counter"), ("_bucket", "histogram"), ("", "gauge")]
            .into_iter()
            .any(|(suffix, kind)| {
                name.strip_suffix(suffix)
                    .is_some_and(|name| counted.contains(&(Some(name.to_owned()), Some(kind.to_owned()))))
            });
        assert!(is_counted, "nothing counts {name}: {counted:?}");
    }
}

#[tokio::test]
async fn a_missing_secret_is_named_by_the_pods_events() {
    in_a_world(async |world| {
        let mut values = merged(
            values(world),
            json!({"migrations": {"enabled": false}, "crds": {"install": false}}),
        );
        values["secrets"]["api"]["name"] = json!("not-there");
        let chart = chart().display().to_string();
        let installed = world
            .cluster
            .helm(
                &["install", RELEASE, &chart, "--values", "-"],
                &values.to_string(),
            )
            .await;
        assert!(installed.succeeded, "{}", installed.stderr);

        let told = async || {
            let events = world.cluster.events().await;
            events
                .iter()
                .any(|event| {
                    event
                        .message
                        .as_deref()
                        .is_some_and(|message| message.contains("secret \"not-there\" not found"))
                })
                .then_some(())
        };
        until("an Event names the Secret", Duration::from_secs(60), told).await;

        // It waits for the Secret, and does not crash.
        let restarts = "--output=jsonpath={.items[*].status.containerStatuses[*].restartCount}";
        let selector = "--selector=app.kubernetes.io/component=api";
        assert_eq!(kubectl(world, &["get", "pods", selector, restarts]).await, "0 0");
        world
            .cluster
            .put_secret("not-there", world.environment(Part::Api))
            .await;
        let started = async || {
            let running = "--output=jsonpath={.items[*].status.containerStatuses[*].started}";
            let started = kubectl(world, &["get", "pods", selector, running]).await;
            started.contains("true").then_some(())
        };
        until("the API starts", Duration::from_secs(60), started).await;
    })
    .await;
}
