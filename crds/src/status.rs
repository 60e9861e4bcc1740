//! What the operator says about a report: a projection of the row, of the Job and of nothing else.

use domain::{Artifact, State};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::conditions::{self, reasons};

/// Where a report is, in one word: the states of the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Accepted; relayed, dispatched or waiting for a place.
    Pending,
    /// An exporter has begun.
    Processing,
    /// The file is there.
    Completed,
    /// It ended without a file.
    Failed,
}

impl Phase {
    /// The one place where the phase is computed: from the condition `Succeeded`.
    pub fn of(conditions: &[Condition]) -> Self {
        let Some(succeeded) = conditions::find(conditions, conditions::SUCCEEDED) else {
            return Self::Pending;
        };
        match (succeeded.status.as_str(), succeeded.reason.as_str()) {
            ("True", _) => Self::Completed,
            ("False", _) => Self::Failed,
            (_, reasons::EXPORTING | reasons::EXPORT_SUSPENDED) => Self::Processing,
            _ => Self::Pending,
        }
    }
}

impl From<State> for Phase {
    fn from(state: State) -> Self {
        match state {
            State::Pending => Self::Pending,
            State::Processing => Self::Processing,
            State::Completed => Self::Completed,
            State::Failed => Self::Failed,
        }
    }
}

/// The status subresource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PopularityReportStatus {
    /// Pending, Processing, Completed or Failed; computed from the conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Phase")]
    pub phase: Option<Phase>,

    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64")]
    pub observed_generation: Option<i64>,

    /// The id of the report in REST and PostgreSQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub report_id: Option<String>,

    /// The parameters of the export, defaults included.
    // Plain JSON: a status that another version wrote must not keep this one from reading the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "parameters_schema")]
    pub parameters: Option<Value>,

    /// How many exporters have begun.
    #[serde(default)]
    #[schemars(with = "i32")]
    pub attempts: u32,

    /// The exporter's Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "JobReference")]
    pub job: Option<JobReference>,

    /// The finished file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ArtifactStatus")]
    pub artifact: Option<ArtifactStatus>,

    /// When the first exporter began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Timestamp")]
    pub started_at: Option<Timestamp>,

    /// When the report ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Timestamp")]
    pub finished_at: Option<Timestamp>,

    /// Accepted, Relayed, Dispatched, Launched, Succeeded, Finished.
    #[serde(default)]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
}

/// The Job that exports the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobReference {
    /// Its name, in the report's namespace.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// The finished file. There is no URL here: signed ones are made when they are asked for, by REST.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactStatus {
    /// The blob container.
    pub container: String,
    /// The blob's name in its container.
    pub blob: String,
    /// Size in bytes, as stored.
    #[schemars(with = "i64")]
    pub bytes: u64,
    /// Data rows, without the header.
    #[schemars(with = "i64")]
    pub rows: u64,
    /// SHA-256 of the stored bytes, in lower-case hexadecimal digits.
    pub sha256: String,
    /// The media type, as served.
    pub content_type: String,
    /// The schema of the file.
    pub schema: String,
    /// The moment of the one snapshot that the file was read from.
    pub data_as_of: Timestamp,
}

impl From<&Artifact> for ArtifactStatus {
    fn from(artifact: &Artifact) -> Self {
        let Artifact {
            container,
            blob,
            bytes,
            rows,
            sha256,
            content_type,
            schema,
            data_as_of,
        } = artifact;
        Self {
            container: container.clone(),
            blob: blob.to_string(),
            bytes: *bytes,
            rows: *rows,
            sha256: sha256.to_string(),
            content_type: content_type.clone(),
            schema: schema.clone(),
            data_as_of: *data_as_of,
        }
    }
}

/// What `popularity.v1` can be asked for; the rules are the spec's.
fn parameters_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {
            "from": { "type": "string" },
            "to": { "type": "string" },
            "genre": { "type": "string" },
            "minRatings": { "type": "integer", "format": "int64" },
            "limit": { "type": "integer", "format": "int64" },
            "priorWeight": { "type": "integer", "format": "int64" },
            "compression": { "type": "string" },
            "spreadsheetSafe": { "type": "boolean" },
        },
    })
}

/// The schema of `meta/v1.Condition`, as its markers give it
/// (<https://github.com/kubernetes/apimachinery/blob/v0.34.4/pkg/apis/meta/v1/types.go#L1631>), in a
/// list that is keyed by type.
fn conditions_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "lastTransitionTime": {
                    "description": "When the status last flipped.",
                    "type": "string",
                    "format": "date-time",
                },
                "message": {
                    "description": "For people; may be empty.",
                    "type": "string",
                    "maxLength": 32768,
                },
                "observedGeneration": {
                    "description": "The generation that the condition was set upon.",
                    "type": "integer",
                    "format": "int64",
                    "minimum": 0,
                },
                "reason": {
                    "description": "For programs, in CamelCase.",
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                },
                "status": {
                    "description": "True, False or Unknown.",
                    "type": "string",
                    "enum": ["True", "False", "Unknown"],
                },
                "type": {
                    "description": "In CamelCase.",
                    "type": "string",
                    "maxLength": 316,
                    "pattern": "^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
                },
            },
        },
    })
}
