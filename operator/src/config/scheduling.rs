//! Options for where and when the exporter's Pods run.

use std::str::FromStr;

use clap::Args;
use k8s_openapi::api::core::v1::{Affinity, Toleration};
use serde::de::DeserializeOwned;

use crds::Scheduling;

use super::Pair;

/// Where and when the exporter's Pods run; a PopularityReport's `spec.scheduling` goes before it, field by
/// field.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Scheduling of exporter Jobs")]
pub struct SchedulingArgs {
    /// The Kueue LocalQueue that admits the Jobs. They start suspended: without Kueue nothing resumes them.
    #[arg(long, env = "EXPORTER_QUEUE_NAME", value_name = "LOCALQUEUE", value_parser = queue_name)]
    pub exporter_queue_name: Option<String>,

    /// The PriorityClass of the Pods.
    #[arg(long, env = "EXPORTER_PRIORITY_CLASS", value_name = "PRIORITYCLASS", value_parser = object_name)]
    pub exporter_priority_class: Option<String>,

    /// A label that a node must have; repeatable, comma-separated in the variable.
    #[arg(long, env = "EXPORTER_NODE_SELECTOR", value_delimiter = ',', value_name = "KEY=VALUE",
        value_parser = label)]
    pub exporter_node_selector: Vec<Pair>,

    /// Taints that the Pods bear, as `tolerations` of a Pod is written.
    #[arg(long, env = "EXPORTER_TOLERATIONS", value_name = "JSON", value_parser = tolerations)]
    pub exporter_tolerations: Option<Json<Vec<Toleration>>>,

    /// Which nodes and Pods the Pods seek or shun, as `affinity` of a Pod is written.
    #[arg(long, env = "EXPORTER_AFFINITY", value_name = "JSON")]
    pub exporter_affinity: Option<Json<Affinity>>,
}

impl From<&SchedulingArgs> for Scheduling {
    fn from(args: &SchedulingArgs) -> Self {
        let selector = args.exporter_node_selector.iter();
        Self {
            queue_name: args.exporter_queue_name.clone(),
            priority_class_name: args.exporter_priority_class.clone(),
            node_selector: Some(selector.map(|pair| pair.clone().into()).collect())
                .filter(|_| !args.exporter_node_selector.is_empty()),
            tolerations: args.exporter_tolerations.as_ref().map(|json| json.0.clone()),
            affinity: args.exporter_affinity.as_ref().map(|json| json.0.clone()),
        }
    }
}

/// A value that is given as JSON, in which a field that Kubernetes does not know is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Json<T>(pub T);

/// Why a JSON option cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// It is no JSON, or not of the type.
    #[error("must be JSON as in a Pod's manifest: {0}")]
    Malformed(serde_json::Error),
    /// A field is misspelt.
    #[error("has a field that Kubernetes does not know: {0}")]
    UnknownField(String),
    /// A field has a value that Kubernetes does not know.
    #[error("{field} must be one of {allowed}, not '{value}'")]
    UnknownValue {
        /// The field.
        field: &'static str,
        /// The values.
        allowed: String,
        /// What was given.
        value: String,
    },
}

impl<T: DeserializeOwned> FromStr for Json<T> {
    type Err = JsonError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut unknown = Vec::new();
        let mut json = serde_json::Deserializer::from_str(text);
        let value = serde_ignored::deserialize(&mut json, |path| unknown.push(path.to_string()))
            .map_err(JsonError::Malformed)?;
        json.end().map_err(JsonError::Malformed)?;
        if unknown.is_empty() {
            Ok(Self(value))
        } else {
            Err(JsonError::UnknownField(unknown.join(", ")))
        }
    }
}

/// <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#scheduling>
fn tolerations(text: &str) -> Result<Json<Vec<Toleration>>, JsonError> {
    let tolerations: Json<Vec<Toleration>> = text.parse()?;
    for toleration in &tolerations.0 {
        one_of("operator", toleration.operator.as_deref(), &["Exists", "Equal"])?;
        one_of(
            "effect",
            toleration.effect.as_deref(),
            &["NoSchedule", "PreferNoSchedule", "NoExecute"],
        )?;
    }
    Ok(tolerations)
}

fn one_of(field: &'static str, value: Option<&str>, allowed: &[&str]) -> Result<(), JsonError> {
    match value {
        Some(value) if !allowed.contains(&value) => Err(JsonError::UnknownValue {
            field,
            allowed: allowed.join(", "),
            value: value.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// A label's value that is a name, too.
fn queue_name(text: &str) -> Result<String, &'static str> {
    if text.len() <= 63 && is_object_name(text) {
        Ok(text.to_owned())
    } else {
        Err("must be a LocalQueue's name: at most 63 lower-case letters, digits, '-' and '.'")
    }
}

fn object_name(text: &str) -> Result<String, &'static str> {
    if is_object_name(text) {
        Ok(text.to_owned())
    } else {
        Err("must be an object's name: at most 253 lower-case letters, digits, '-' and '.'")
    }
}

/// <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set>
fn label(text: &str) -> Result<Pair, &'static str> {
    let pair: Pair = text.parse()?;
    let name = match pair.name.split_once('/') {
        Some((prefix, name)) if is_object_name(prefix) => name,
        Some(_) => return Err("must have a domain's name before the slash of the label's key"),
        None => &pair.name,
    };
    if !is_label_text(name) || !(pair.value.is_empty() || is_label_text(&pair.value)) {
        return Err("must be a label: at most 63 letters, digits, '-', '_' and '.' on each side");
    }
    Ok(pair)
}

fn is_label_text(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.ends_with(|last: char| last.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// RFC 1123 subdomain: <https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>
fn is_object_name(text: &str) -> bool {
    let is_part = |part: &str| {
        let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        part.starts_with(ends) && part.ends_with(ends) && part.chars().all(|c| ends(c) || c == '-')
    };
    text.len() <= 253 && text.split('.').all(is_part)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        scheduling: SchedulingArgs,
    }

    fn read(words: &[&str]) -> Result<Scheduling, String> {
        let line = Line::try_parse_from([&["operator"], words].concat());
        line.map(|line| Scheduling::from(&line.scheduling))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn without_options_nothing_is_asked_for() {
        assert_eq!(read(&[]), Ok(Scheduling::default()));
    }

    #[test]
    fn every_option_arrives() {
        let scheduling = read(&[
            "--exporter-queue-name=reports",
            "--exporter-priority-class=batch-low",
            "--exporter-node-selector=kubernetes.io/os=linux,disk=ssd",
            r#"--exporter-tolerations=[{"key":"spot","operator":"Exists","effect":"NoSchedule"}]"#,
            r#"--exporter-affinity={"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms":[{"matchExpressions":[{"key":"zone","operator":"In","values":["1"]}]}]}}}"#,
        ]);

        let expected: Scheduling = serde_json::from_value(json!({
            "queueName": "reports",
            "priorityClassName": "batch-low",
            "nodeSelector": {"kubernetes.io/os": "linux", "disk": "ssd"},
            "tolerations": [{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}],
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["1"]}]}],
            }}},
        }))
        .unwrap();
        assert_eq!(scheduling, Ok(expected));
    }

    #[rstest]
    #[case::capitals("--exporter-queue-name=Reports", "must be a LocalQueue's name")]
    #[case::empty("--exporter-queue-name=", "must be a LocalQueue's name")]
    #[case::underscore("--exporter-priority-class=very_high", "must be an object's name")]
    #[case::no_value("--exporter-node-selector=disk", "must be NAME=VALUE")]
    #[case::bad_value("--exporter-node-selector=disk=s s d", "must be a label")]
    #[case::bad_prefix("--exporter-node-selector=A_b/disk=ssd", "before the slash")]
    #[case::no_json("--exporter-tolerations=spot", "must be JSON as in a Pod's manifest")]
    #[case::not_a_list(
        r#"--exporter-tolerations={"key":"spot"}"#,
        "must be JSON as in a Pod's manifest"
    )]
    #[case::misspelt(r#"--exporter-tolerations=[{"kye":"spot"}]"#, "does not know: 0.kye")]
    #[case::operator(
        r#"--exporter-tolerations=[{"key":"spot","operator":"exists"}]"#,
        "operator must be one of Exists, Equal, not 'exists'"
    )]
    #[case::effect(r#"--exporter-tolerations=[{"effect":"No"}]"#, "effect must be one of")]
    #[case::more_after_it(r#"--exporter-affinity={} {}"#, "must be JSON as in a Pod's manifest")]
    #[case::misspelt_deep_inside(
        r#"--exporter-affinity={"podAntiAffinity":{"requiredDuringScheduling":[]}}"#,
        "does not know: podAntiAffinity.?.requiredDuringScheduling"
    )]
    fn a_wrong_value_is_refused_with_its_option_and_why(#[case] word: &str, #[case] says: &str) {
        let error = read(&[word]).unwrap_err();

        assert!(error.contains(says), "{error}");
        assert!(error.contains(word.split('=').next().unwrap()), "{error}");
    }
}
