//! Helm on the chart of this checkout, without a cluster.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize as _;
use serde_json::{Value, json};

/// What is rendered for. Helm believes in another one, of its own build.
const KUBERNETES: &str = "1.34.0";
/// The namespace of what is rendered.
pub const NAMESPACE: &str = "music";
/// The release's name.
pub const RELEASE: &str = "reports";
/// How the names of its objects begin.
pub const FULLNAME: &str = "reports-popularity-reports";

/// The chart's folder.
pub fn chart() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests
        .parent()
        .expect("the tests are in a workspace")
        .join("charts/popularity-reports")
}

/// One of the values files that the chart comes with.
pub fn chart_values(name: &str) -> Value {
    let path = chart().join(format!("values-{name}.yaml"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_yaml_ng::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The least that can be installed.
pub fn secrets() -> Value {
    json!({"secrets": {
        "api": {"name": "the-api"},
        "operator": {"name": "the-operator"},
        "exporter": {"name": "the-exporter"},
        "migrations": {"name": "the-migrations"},
    }})
}

/// All that can be switched on, on top of the values for AKS.
pub fn everything() -> Value {
    let some_labels = json!({"example.com/team": "music"});
    let tolerations = json!([{"key": "example.com/batch", "operator": "Exists", "effect": "NoSchedule"}]);
    let affinity = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
        "weight": 1,
        "preference": {"matchExpressions": [{"key": "example.com/disk", "operator": "In", "values": ["ssd"]}]},
    }]}});
    let program = json!({
        "extraEnv": [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        "podLabels": some_labels,
        "podAnnotations": {"example.com/note": "true"},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": tolerations,
        "affinity": affinity,
        "topologySpreadConstraints": [{
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": some_labels},
        }],
    });
    let peer =
        |name: &str| json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}]);
    let mut values = merged(
        chart_values("aks"),
        json!({
            "images": {
                "pullSecrets": ["registry"],
                "exporter": {"digest": format!("sha256:{}", "0123456789abcdef".repeat(4))},
            },
            "database": {"catalogue": {"host": "replica.example.com", "port": 6432, "name": "music"}},
            "blob": {"publicEndpoint": "https://files.example.com"},
            "api": program,
            "operator": program,
            "exporter": {
                "extraEnv": [{"name": "EXPORTER_PATIENCE", "value": "1m"}],
                "podLabels": some_labels,
                "queueName": "exports",
                "priorityClassName": "batch",
                "nodeSelector": {"kubernetes.io/os": "linux", "example.com/pool": "batch"},
                "tolerations": tolerations,
                "affinity": affinity,
            },
            "migrations": {"nodeSelector": {"kubernetes.io/os": "linux"}},
            "networkPolicy": {"clients": peer("gateways"), "monitoring": peer("monitoring")},
            "monitoring": {
                "serviceMonitor": {"enabled": true, "labels": {"release": "prometheus"}},
                "prometheusRule": {"enabled": true},
                "dashboard": {"enabled": true},
            },
            "tests": {"tokenSecret": {"name": "token"}},
        }),
    );
    values = merged(
        values,
        json!({"api": {
            "autoscaling": {"enabled": true},
            "service": {"type": "LoadBalancer", "annotations": {"example.com/internal": "true"}},
            "ingress": {"enabled": true, "className": "public", "hosts": ["reports.example.com"], "tlsSecret": "tls"},
            "httpRoute": {
                "enabled": true,
                "parentRefs": [{"name": "public", "namespace": "gateways"}],
                "hostnames": ["reports.example.com"],
            },
        }}),
    );
    values
}

/// All that can be switched off.
pub fn minimal() -> Value {
    let off = json!({"enabled": false});
    merged(
        secrets(),
        json!({
            "crds": {"install": false},
            "api": {"replicas": 1, "podDisruptionBudget": off},
            "operator": {"replicas": 1, "podDisruptionBudget": off},
            "migrations": off,
            "networkPolicy": off,
            "admissionPolicy": off,
            "priorityClass": {"create": false},
            "tests": off,
        }),
    )
}

/// `base` with what `over` has besides or otherwise, as Helm does with two values files.
pub fn merged(base: Value, over: Value) -> Value {
    match (base, over) {
        (Value::Object(mut base), Value::Object(over)) => {
            for (key, value) in over {
                let below = base.remove(&key).unwrap_or(Value::Null);
                base.insert(key, merged(below, value));
            }
            Value::Object(base)
        }
        (_, over) => over,
    }
}

/// What `helm template` makes of these values.
///
/// # Errors
/// What Helm says when it refuses them.
pub fn template(values: &Value) -> Result<String, String> {
    let chart = chart();
    let arguments = [
        "template",
        RELEASE,
        chart.to_str().expect("a path that is text"),
        "--namespace",
        NAMESPACE,
        "--kube-version",
        KUBERNETES,
        "--values",
        "-",
    ];
    run(&arguments, &values.to_string())
}

/// The objects of what [`template`] rendered.
///
/// # Panics
/// When Helm refuses the values.
pub fn objects(values: &Value) -> Vec<Value> {
    let rendered = template(values).unwrap_or_else(|error| panic!("{error}"));
    serde_yaml_ng::Deserializer::from_str(&rendered)
        .map(|document| Value::deserialize(document).expect("Helm renders YAML"))
        .filter(|object| !object.is_null())
        .collect()
}

/// Runs Helm with this standard input.
///
/// # Errors
/// What it says when it fails.
pub fn run(arguments: &[&str], input: &str) -> Result<String, String> {
    let helm = std::env::var_os("HELM").unwrap_or_else(|| "helm".into());
    let mut child = Command::new(&helm)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!(
                "cannot run {}: {error}; `cargo xtask test` sets HELM",
                helm.display()
            )
        });
    let mut stdin = child.stdin.take().expect("standard input is a pipe");
    stdin.write_all(input.as_bytes()).expect("Helm reads its input");
    drop(stdin);
    let output = child.wait_with_output().expect("Helm ends");
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).expect("Helm prints text"))
    } else {
        let said = [output.stdout, output.stderr].concat();
        Err(String::from_utf8_lossy(&said).into_owned())
    }
}
