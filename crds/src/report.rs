//! The type: what a person may ask for.
#![expect(
    clippy::duplicated_attributes,
    reason = "each printer column has a type and a path of its own"
)]

mod conversion;
mod scheduling;
mod validation;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::PopularityReportStatus;
pub use scheduling::Scheduling;
use validation::{
    active_deadline, cancel_is_final, compression, fixed, genre, limit, min_ratings, prior_weight,
    time_to_live, timestamp, window,
};

/// One export of album popularity. The parameters are those of `POST /reports/popularity`, with the
/// same names, defaults, rules and texts.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "reports.musicalbums.dev",
    version = "v1alpha1",
    kind = "PopularityReport",
    plural = "popularityreports",
    shortname = "popreport",
    category = "musicalbums",
    namespaced,
    status = "PopularityReportStatus",
    derive = "PartialEq",
    doc = "A report of how popular each album is, exported as CSV to blob storage.",
    selectable = ".status.phase",
    printcolumn(
        name = "Phase",
        type_ = "string",
        json_path = ".status.phase",
        description = "Pending, Processing, Completed or Failed"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Succeeded\")].reason",
        description = "Where it is, or why it failed"
    ),
    printcolumn(
        name = "Rows",
        type_ = "integer",
        json_path = ".status.artifact.rows",
        description = "Data rows of the file"
    ),
    printcolumn(
        name = "Size",
        type_ = "integer",
        json_path = ".status.artifact.bytes",
        description = "Bytes of the file, as stored"
    ),
    printcolumn(
        name = "Attempts",
        type_ = "integer",
        json_path = ".status.attempts",
        description = "How many exporters have begun"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Report-Id",
        type_ = "string",
        json_path = ".status.reportId",
        description = "The id of the report in REST and PostgreSQL",
        priority = "1"
    ),
    printcolumn(
        name = "Blob",
        type_ = "string",
        json_path = ".status.artifact.blob",
        description = "The file's name in its container",
        priority = "1"
    ),
    printcolumn(
        name = "Data-As-Of",
        type_ = "string",
        json_path = ".status.artifact.dataAsOf",
        description = "The moment of the snapshot that the file was read from",
        priority = "1"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = window(),
    validation = fixed("from", true),
    validation = fixed("to", true),
    validation = fixed("genre", true),
    validation = fixed("minRatings", false),
    validation = fixed("limit", true),
    validation = fixed("priorWeight", false),
    validation = fixed("compression", false),
    validation = fixed("spreadsheetSafe", false),
    validation = fixed("activeDeadlineSeconds", false),
    validation = fixed("scheduling", true)
)]
pub struct PopularityReportSpec {
    /// Ratings created at or after this RFC 3339 time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 256))]
    #[x_kube(validation = timestamp())]
    pub from: Option<String>,

    /// Ratings created before this RFC 3339 time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 256))]
    #[x_kube(validation = timestamp())]
    pub to: Option<String>,

    /// Albums of this genre alone, by its exact name. An unknown one gives a file without rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 1024))]
    #[x_kube(validation = genre())]
    pub genre: Option<String>,

    /// Albums with at least so many ratings in the window; 0 lists unrated ones too.
    #[serde(default = "default_min_ratings")]
    #[x_kube(validation = min_ratings())]
    pub min_ratings: i64,

    /// At most so many rows, from the top.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64")]
    #[x_kube(validation = limit())]
    pub limit: Option<i64>,

    /// How many average ratings each album is given beforehand; 0 is the plain mean.
    #[serde(default = "default_prior_weight")]
    #[x_kube(validation = prior_weight())]
    pub prior_weight: i64,

    /// How the file is compressed: none or gzip.
    #[serde(default = "default_compression")]
    #[schemars(length(max = 256))]
    #[x_kube(validation = compression())]
    pub compression: String,

    /// Whether cells that a spreadsheet would run as formulas get a leading apostrophe.
    #[serde(default = "default_spreadsheet_safe")]
    pub spreadsheet_safe: bool,

    /// Ends the report with the reason Cancelled if it has not ended yet. Can be set, not unset.
    #[serde(default)]
    #[x_kube(validation = cancel_is_final())]
    pub cancel: bool,

    /// What happens to the file when this object is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// How many seconds after its end the report is deleted.
    #[serde(default = "default_ttl_seconds_after_finished")]
    #[x_kube(validation = time_to_live())]
    pub ttl_seconds_after_finished: i64,

    /// How many seconds the export may take, all attempts together, from the launch of its Job; anew after
    /// each time that a queue has suspended it.
    #[serde(default = "default_active_deadline_seconds")]
    #[x_kube(validation = active_deadline())]
    pub active_deadline_seconds: i64,

    /// Where and when the exporter's Pods run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Scheduling")]
    pub scheduling: Option<Scheduling>,
}

/// What happens to the file when the custom resource is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// The file is deleted too.
    #[default]
    Delete,
    /// The file stays.
    Retain,
}

/// Seven days.
pub const DEFAULT_TTL_SECONDS_AFTER_FINISHED: i64 = 604_800;
/// Half an hour.
pub const DEFAULT_ACTIVE_DEADLINE_SECONDS: i64 = 1_800;

fn default_min_ratings() -> i64 {
    i64::from(domain::Parameters::default().min_ratings)
}

fn default_prior_weight() -> i64 {
    i64::from(domain::Parameters::default().prior_weight)
}

fn default_compression() -> String {
    domain::Parameters::default().compression.as_str().to_owned()
}

fn default_spreadsheet_safe() -> bool {
    domain::Parameters::default().spreadsheet_safe
}

const fn default_ttl_seconds_after_finished() -> i64 {
    DEFAULT_TTL_SECONDS_AFTER_FINISHED
}

const fn default_active_deadline_seconds() -> i64 {
    DEFAULT_ACTIVE_DEADLINE_SECONDS
}
