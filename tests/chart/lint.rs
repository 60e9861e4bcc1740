//! The chart as Helm and its users find it.

use rstest::rstest;
use serde_json::Value;

use crate::helm::{self, chart, chart_values, everything, merged, minimal, objects, run, secrets};

#[rstest]
#[case::defaults_and_secrets(secrets())]
#[case::kind(chart_values("kind"))]
#[case::aks(chart_values("aks"))]
#[case::everything(everything())]
#[case::minimal(minimal())]
fn a_strict_lint_finds_nothing(#[case] values: Value) {
    let chart = chart();
    let answer = run(
        &["lint", "--strict", chart.to_str().unwrap(), "--values", "-"],
        &values.to_string(),
    )
    .unwrap();

    assert!(answer.contains("0 chart(s) failed"), "{answer}");
}

#[test]
fn the_packaged_chart_renders_what_the_folder_renders() {
    let folder = tempfile::tempdir().unwrap();
    let chart = chart();
    let destination = folder.path().to_str().unwrap();
    run(
        &["package", chart.to_str().unwrap(), "--destination", destination],
        "",
    )
    .unwrap();
    let package = folder.path().join("popularity-reports-0.1.0.tgz");

    let rendered = run(
        &[
            "template",
            helm::RELEASE,
            package.to_str().unwrap(),
            "--namespace",
            helm::NAMESPACE,
            "--kube-version",
            "1.34.0",
            "--values",
            "-",
        ],
        &everything().to_string(),
    )
    .unwrap();

    assert_eq!(rendered, helm::template(&everything()).unwrap());
    // the link to the generated definition was followed
    assert!(rendered.contains("kind: CustomResourceDefinition"));
}

#[test]
fn the_versions_are_the_workspaces() {
    let text = std::fs::read_to_string(chart().join("Chart.yaml")).unwrap();
    let about: Value = serde_yaml_ng::from_str(&text).unwrap();

    assert_eq!(about["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(about["appVersion"], env!("CARGO_PKG_VERSION"));
    let images = about["annotations"]["artifacthub.io/images"].as_str().unwrap();
    for program in ["api", "operator", "exporter"] {
        let image = format!("popularity-reports/{program}:{}", env!("CARGO_PKG_VERSION"));
        assert!(images.contains(&image), "{images}");
    }
}

#[test]
fn the_definition_is_the_generated_one() {
    let definition = |values: Value| {
        objects(&values)
            .into_iter()
            .find(|object| object["kind"] == "CustomResourceDefinition")
    };
    let crds = |install: bool, keep: bool| {
        merged(
            secrets(),
            serde_json::json!({"crds": {"install": install, "keep": keep}}),
        )
    };
    let generated =
        std::fs::read_to_string(chart().join("files/crds/popularityreports.reports.musicalbums.dev.yaml"))
            .unwrap();
    let generated: Value = serde_yaml_ng::from_str(&generated).unwrap();

    let kept = definition(crds(true, true)).unwrap();
    assert!(
        same(&kept["spec"], &generated["spec"]),
        "the chart's definition is not the one in crds/yaml"
    );
    assert_eq!(kept["metadata"]["name"], generated["metadata"]["name"]);
    assert_eq!(kept["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
    let removed = definition(crds(true, false)).unwrap();
    assert_eq!(removed["metadata"]["annotations"], Value::Null);
    assert_eq!(definition(crds(false, true)), None);
}

/// Equal, where Helm may have written 0.0 as 0.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .all(|(key, one)| other.get(key).is_some_and(|other| same(one, other)))
        }
        (one, other) => one == other,
    }
}
