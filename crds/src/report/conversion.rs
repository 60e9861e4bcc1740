//! Between the custom resource and the domain.

use std::collections::BTreeMap;

use domain::{Instant, ParameterErrors, Parameters, Report, ReportId};
use kube::api::ObjectMeta;
use serde_json::json;

use super::{
    DEFAULT_ACTIVE_DEADLINE_SECONDS, DEFAULT_TTL_SECONDS_AFTER_FINISHED, DeletionPolicy, PopularityReport,
    PopularityReportSpec,
};
use crate::names;

impl PopularityReportSpec {
    /// The parameters that this spec asks for.
    ///
    /// # Errors
    /// [`ParameterErrors`] for a spec that the API server's rules should have refused: one that was
    /// stored under an older version of them.
    pub fn parameters(&self) -> Result<Parameters, ParameterErrors> {
        let Self {
            from,
            to,
            genre,
            min_ratings,
            limit,
            prior_weight,
            compression,
            spreadsheet_safe,
            cancel: _,
            deletion_policy: _,
            ttl_seconds_after_finished: _,
            active_deadline_seconds: _,
            scheduling: _,
        } = self;
        Parameters::from_json(&json!({
            "from": from,
            "to": to,
            "genre": genre,
            "minRatings": min_ratings,
            "limit": limit,
            "priorWeight": prior_weight,
            "compression": compression,
            "spreadsheetSafe": spreadsheet_safe,
        }))
    }
}

impl From<&Parameters> for PopularityReportSpec {
    fn from(parameters: &Parameters) -> Self {
        let Parameters {
            from,
            to,
            genre,
            min_ratings,
            limit,
            prior_weight,
            compression,
            spreadsheet_safe,
        } = parameters;
        Self {
            from: from.as_ref().map(Instant::to_string),
            to: to.as_ref().map(Instant::to_string),
            genre: genre.clone(),
            min_ratings: i64::from(*min_ratings),
            limit: limit.map(i64::from),
            prior_weight: i64::from(*prior_weight),
            compression: compression.as_str().to_owned(),
            spreadsheet_safe: *spreadsheet_safe,
            cancel: false,
            deletion_policy: DeletionPolicy::default(),
            ttl_seconds_after_finished: DEFAULT_TTL_SECONDS_AFTER_FINISHED,
            active_deadline_seconds: DEFAULT_ACTIVE_DEADLINE_SECONDS,
            scheduling: None,
        }
    }
}

impl PopularityReport {
    /// The object for a report that began as a row, as the REST service and the operator's sweep both
    /// create it: whoever comes second gets `AlreadyExists`, which is success.
    ///
    /// A report that began as a custom resource and lost it (a new cluster) gets its old name back. The
    /// finalizer is there from the start: a deletion waits for the operator, whoever is quicker.
    pub fn for_row(report: &Report, namespace: &str) -> Self {
        let name = match &report.custom_resource {
            Some(earlier) if earlier.namespace == namespace => earlier.name.clone(),
            _ => names::custom_resource(report.id),
        };
        let labels = [
            (names::REPORT_ID_LABEL, report.id.to_string()),
            (names::MANAGED_BY_LABEL, names::MANAGED_BY.to_owned()),
        ];
        let annotations: BTreeMap<_, _> = report
            .traceparent
            .iter()
            .map(|parent| (names::TRACEPARENT_ANNOTATION.to_owned(), parent.clone()))
            .collect();
        Self {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(namespace.to_owned()),
                labels: Some(labels.map(|(key, value)| (key.to_owned(), value)).into()),
                finalizers: Some(vec![names::FINALIZER.to_owned()]),
                annotations: Some(annotations).filter(|annotations| !annotations.is_empty()),
                ..ObjectMeta::default()
            },
            spec: PopularityReportSpec::from(&report.parameters),
            status: None,
        }
    }

    /// The report of the label, for an object that was made for a row.
    pub fn labelled_report(&self) -> Option<ReportId> {
        self.metadata
            .labels
            .as_ref()?
            .get(names::REPORT_ID_LABEL)?
            .parse()
            .ok()
    }

    /// The report that has this object's uid, for an object that came first.
    pub fn own_report(&self) -> Option<ReportId> {
        self.metadata.uid.as_ref()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use domain::Compression;
    use rstest::rstest;

    use super::*;
    use crate::testing;

    fn everything() -> Parameters {
        Parameters {
            from: Some("2025-01-01T00:00:00Z".parse().unwrap()),
            to: Some("2026-01-01T01:00:00+01:00".parse().unwrap()),
            genre: Some("Trip Hop".to_owned()),
            min_ratings: 3,
            limit: Some(50),
            prior_weight: 25,
            compression: Compression::Gzip,
            spreadsheet_safe: false,
        }
    }

    #[rstest]
    #[case::defaults(Parameters::default())]
    #[case::everything(everything())]
    fn parameters_come_back_as_they_went(#[case] parameters: Parameters) {
        let spec = PopularityReportSpec::from(&parameters);

        assert_eq!(spec.parameters(), Ok(parameters));
    }

    #[test]
    fn an_empty_spec_has_the_documented_defaults() {
        let spec: PopularityReportSpec = serde_json::from_value(json!({})).unwrap();

        assert_eq!(spec, PopularityReportSpec::from(&Parameters::default()));
        assert_eq!(spec.ttl_seconds_after_finished, 604_800);
        assert_eq!(spec.active_deadline_seconds, 1_800);
        assert_eq!(spec.deletion_policy, DeletionPolicy::Delete);
    }

    #[test]
    fn a_spec_that_slipped_past_the_rules_is_refused_with_the_same_texts() {
        for bad in testing::bad_parameters() {
            let Ok(spec) = serde_json::from_value::<PopularityReportSpec>(bad.parameters.clone()) else {
                continue; // a wrong type: the API server refuses it before any rule
            };
            if bad.is_unknown_field() {
                continue; // pruned, or refused by strict field validation
            }
            let errors = spec.parameters().expect_err(bad.name);
            assert!(
                errors
                    .0
                    .iter()
                    .any(|error| error.property == bad.property && error.message == bad.message),
                "{}: {errors}",
                bad.name
            );
        }
    }
}
