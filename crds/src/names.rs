//! Names that travel: between the API server, the operator, the exporter's Jobs and people's scripts.

use domain::ReportId;

/// The API group.
pub const GROUP: &str = "reports.musicalbums.dev";
/// The version of the group that this code reads and writes.
pub const VERSION: &str = "v1alpha1";
/// The kind.
pub const KIND: &str = "PopularityReport";
/// The plural, as in URLs and RBAC rules.
pub const PLURAL: &str = "popularityreports";

/// Keeps a report's object until its Job, its Pods and, by policy, its file are gone.
pub const FINALIZER: &str = "reports.musicalbums.dev/report";
/// The owner of every field that the operator applies.
pub const FIELD_MANAGER: &str = "popularity-reports-operator";
/// The owner of every field of a custom resource that the REST service creates.
pub const API_FIELD_MANAGER: &str = "popularity-reports-api";
/// Who Events say that they come from.
pub const REPORTER: &str = "popularity-reports-operator";

/// Label: the report that an object belongs to.
pub const REPORT_ID_LABEL: &str = "reports.musicalbums.dev/report-id";
/// Label (recommended by Kubernetes): the program that runs in the Pod.
pub const APP_NAME_LABEL: &str = "app.kubernetes.io/name";
/// Label (recommended by Kubernetes): who manages the object.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Value of [`APP_NAME_LABEL`] for exporter Jobs and Pods.
pub const EXPORTER_APP_NAME: &str = "popularity-report-exporter";
/// Value of [`MANAGED_BY_LABEL`] for what the operator creates.
pub const MANAGED_BY: &str = "popularity-reports-operator";
/// Label: the LocalQueue that admits a Job (<https://kueue.sigs.k8s.io/docs/reference/labels-and-annotations/>).
pub const QUEUE_NAME_LABEL: &str = "kueue.x-k8s.io/queue-name";
/// Annotation: the W3C `traceparent` of the request that led to the object.
pub const TRACEPARENT_ANNOTATION: &str = "reports.musicalbums.dev/traceparent";

/// The name of the exporter's container in its Pod.
pub const EXPORTER_CONTAINER: &str = "exporter";

/// The name of the custom resource of a report that began as a row.
pub fn custom_resource(report: ReportId) -> String {
    format!("report-{report}")
}

/// The name of a report's exporter Job: the same however often it is built.
pub fn job(report: ReportId) -> String {
    format!("export-{report}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// <https://kubernetes.io/docs/concepts/workloads/controllers/job/#writing-a-job-spec>: a Job's
    /// name becomes a Pod label, hence 63 characters.
    #[test]
    fn names_fit_a_label() {
        let report = "0190b7c4-0000-7000-8000-000000000001".parse().unwrap();
        assert_eq!(
            custom_resource(report),
            "report-0190b7c4-0000-7000-8000-000000000001"
        );
        assert_eq!(job(report), "export-0190b7c4-0000-7000-8000-000000000001");
        assert!(job(report).len() <= 63);
    }
}
