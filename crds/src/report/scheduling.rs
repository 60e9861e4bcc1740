//! Where and when the exporter's Pods run.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, Toleration};
use kube::KubeSchema;
use schemars::transform::{RecursiveTransform, Transform as _};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::validation::{label_pairs, object_name, queue_name};

/// Where and when the exporter's Pods run. A field that is not given is the operator's option of that name.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scheduling {
    /// The Kueue LocalQueue that admits the exporter's Job, which starts suspended; in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 63))]
    #[x_kube(validation = queue_name())]
    pub queue_name: Option<String>,

    /// The PriorityClass of the exporter's Pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 253))]
    #[x_kube(validation = object_name())]
    pub priority_class_name: Option<String>,

    /// Labels that a node must have; an empty list asks for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "node_selector_schema")]
    #[x_kube(validation = label_pairs())]
    pub node_selector: Option<BTreeMap<String, String>>,

    /// Taints that the exporter's Pods bear; an empty list bears none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "tolerations_schema")]
    pub tolerations: Option<Vec<Toleration>>,

    /// Which nodes and which other Pods the exporter's Pods seek or shun; an empty object asks for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "affinity_schema")]
    pub affinity: Option<Affinity>,
}

impl Scheduling {
    /// These wishes, and for what they leave open those of `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            queue_name: self.queue_name.or(other.queue_name),
            priority_class_name: self.priority_class_name.or(other.priority_class_name),
            node_selector: self.node_selector.or(other.node_selector),
            tolerations: self.tolerations.or(other.tolerations),
            affinity: self.affinity.or(other.affinity),
        }
    }
}

/// The most entries of a list or a map, and the longest text: what makes the cost of comparing two of them
/// (the rule that `scheduling` cannot be changed) small enough for the API server
/// (<https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#resource-use-by-validation-functions>).
const ENTRIES_MAX: u64 = 32;
const TEXT_MAX: u64 = 253;

fn node_selector_schema(generator: &mut SchemaGenerator) -> Schema {
    bounded(BTreeMap::<String, String>::json_schema(generator))
}

fn tolerations_schema(generator: &mut SchemaGenerator) -> Schema {
    bounded(Vec::<Toleration>::json_schema(generator))
}

fn affinity_schema(generator: &mut SchemaGenerator) -> Schema {
    bounded(Affinity::json_schema(generator))
}

/// Kubernetes' own schema without its descriptions, which are hundreds of lines, and with an end to
/// everything that has none.
fn bounded(mut schema: Schema) -> Schema {
    RecursiveTransform(|schema: &mut Schema| {
        schema.remove("description");
        let has_entries = schema.get("additionalProperties").is_some_and(Value::is_object);
        let bound = match schema.get("type").and_then(Value::as_str) {
            Some("array") => Some(("maxItems", ENTRIES_MAX)),
            Some("object") if has_entries => Some(("maxProperties", ENTRIES_MAX)),
            Some("string") => Some(("maxLength", TEXT_MAX)),
            _ => None,
        };
        if let Some((name, most)) = bound {
            schema.insert(name.to_owned(), most.into());
        }
    })
    .transform(&mut schema);
    schema
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn scheduling(json: Value) -> Scheduling {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn the_report_goes_before_the_operator_field_by_field() {
        let report = scheduling(json!({"queueName": "nightly", "tolerations": []}));
        let operator = scheduling(json!({
            "queueName": "reports",
            "priorityClassName": "batch",
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "spot", "operator": "Exists"}],
        }));

        assert_eq!(
            report.or(operator),
            scheduling(json!({
                "queueName": "nightly",
                "priorityClassName": "batch",
                "nodeSelector": {"disk": "ssd"},
                "tolerations": [],
            }))
        );
    }
}
