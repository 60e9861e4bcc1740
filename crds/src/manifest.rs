//! The CustomResourceDefinition, and its generated file.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::PopularityReport;

/// Where the generated file lies, from this crate's folder.
pub const FILE: &str = "yaml/popularityreports.reports.musicalbums.dev.yaml";

const HEADER: &str = "# Generated from crds/src/report.rs by `cargo xtask generate`; do not edit.\n";

/// The definition to install into a cluster.
pub fn definition() -> CustomResourceDefinition {
    PopularityReport::crd()
}

/// The text of [`FILE`].
///
/// # Errors
/// When the definition cannot be written as YAML.
pub fn yaml() -> Result<String, serde_yaml_ng::Error> {
    Ok(format!("{HEADER}{}", serde_yaml_ng::to_string(&definition())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_what_the_type_generates() {
        let committed = include_str!("../yaml/popularityreports.reports.musicalbums.dev.yaml");

        assert!(
            committed == yaml().unwrap(),
            "{FILE} is out of date: run `cargo run -p crds --bin crdgen`"
        );
    }
}
