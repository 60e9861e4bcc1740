//! The `PopularityReport` custom resource: its Rust type, the names that travel with it, and the
//! manifest that is generated from the type and lies beside this code in `yaml/`.
//!
//! Validation says the same as REST: the rules are CEL (evaluated by the API server), their texts are
//! [`domain::messages`], and [`testing`] holds the one table of bad parameters that is run through
//! both doors.

pub mod conditions;
pub mod manifest;
pub mod names;
mod report;
mod status;
pub mod testing;

pub use report::{DeletionPolicy, PopularityReport, PopularityReportSpec, Scheduling};
pub use status::{ArtifactStatus, JobReference, Phase, PopularityReportStatus};
