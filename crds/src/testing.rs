//! The one table of bad parameters. It is run through every door: the domain (here), REST (in the
//! `api` crate), and a real API server (in `tests/`), and each must refuse each row.

use domain::messages;
use serde_json::{Value, json};

/// One request that must be refused.
#[derive(Clone, Debug)]
pub struct BadParameters {
    /// What the case is about; unique, fit for a test's name and for a Kubernetes object's.
    pub name: &'static str,
    /// The parameters: the body of `POST /reports/popularity` and the custom resource's spec.
    pub parameters: Value,
    /// The field that is wrong.
    pub property: &'static str,
    /// What REST says of it, see [`domain::messages`].
    pub message: &'static str,
    /// What the API server's answer contains; the same text unless its schema speaks first.
    pub custom_resource: &'static str,
}

impl BadParameters {
    /// Whether the row is about a name that is no parameter. The API server refuses such only when
    /// asked to validate strictly (`fieldValidation=Strict`), as `kubectl` asks.
    pub fn is_unknown_field(&self) -> bool {
        self.message == messages::UNKNOWN
    }

    /// JSON Pointer (RFC 6901) to the field in REST's body.
    pub fn pointer(&self) -> String {
        format!("/{}", self.property)
    }
}

fn row(
    name: &'static str,
    parameters: Value,
    property: &'static str,
    message: &'static str,
) -> BadParameters {
    BadParameters {
        name,
        parameters,
        property,
        message,
        custom_resource: message,
    }
}

/// A row that the API server's schema refuses before any rule, in its own words.
fn row_of_type(
    name: &'static str,
    parameters: Value,
    property: &'static str,
    message: &'static str,
    custom_resource: &'static str,
) -> BadParameters {
    BadParameters {
        custom_resource,
        ..row(name, parameters, property, message)
    }
}

/// Every row.
pub fn bad_parameters() -> Vec<BadParameters> {
    vec![
        row(
            "from-without-offset",
            json!({"from": "2026-01-31T00:00:00"}),
            "from",
            messages::TIMESTAMP,
        ),
        row(
            "from-is-a-date",
            json!({"from": "2026-01-31"}),
            "from",
            messages::TIMESTAMP,
        ),
        row("from-is-empty", json!({"from": ""}), "from", messages::TIMESTAMP),
        row(
            "from-on-a-day-that-is-not",
            json!({"from": "2026-02-30T00:00:00Z"}),
            "from",
            messages::TIMESTAMP,
        ),
        row(
            "from-with-nanoseconds",
            json!({"from": "2026-01-31T00:00:00.123456789Z"}),
            "from",
            messages::TIMESTAMP,
        ),
        row(
            "from-in-the-year-nought",
            json!({"from": "0001-01-01T00:00:00Z"}),
            "from",
            messages::TIMESTAMP,
        ),
        row(
            "from-with-a-leap-second",
            json!({"from": "2016-12-31T23:59:60Z"}),
            "from",
            messages::TIMESTAMP,
        ),
        row(
            "from-with-words",
            json!({"from": "yesterday"}),
            "from",
            messages::TIMESTAMP,
        ),
        row_of_type(
            "from-is-a-number",
            json!({"from": 1_769_817_600}),
            "from",
            messages::TIMESTAMP,
            "must be of type string",
        ),
        row(
            "to-without-offset",
            json!({"to": "2026-01-31T00:00:00"}),
            "to",
            messages::TIMESTAMP,
        ),
        row(
            "to-with-a-space",
            json!({"to": "2026-01-31 00:00:00Z"}),
            "to",
            messages::TIMESTAMP,
        ),
        row(
            "from-after-to",
            json!({"from": "2026-02-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"}),
            "from",
            messages::WINDOW,
        ),
        row(
            "from-equals-to-in-another-offset",
            json!({"from": "2026-01-01T01:00:00+01:00", "to": "2026-01-01T00:00:00Z"}),
            "from",
            messages::WINDOW,
        ),
        row("genre-is-empty", json!({"genre": ""}), "genre", messages::GENRE),
        row(
            "genre-with-a-newline",
            json!({"genre": "Rock\nPop"}),
            "genre",
            messages::GENRE,
        ),
        row(
            "genre-with-201-characters",
            json!({"genre": "é".repeat(201)}),
            "genre",
            messages::GENRE,
        ),
        row_of_type(
            "genre-is-a-list",
            json!({"genre": ["Rock"]}),
            "genre",
            messages::GENRE,
            "must be of type string",
        ),
        row(
            "min-ratings-below-0",
            json!({"minRatings": -1}),
            "minRatings",
            messages::MIN_RATINGS,
        ),
        row(
            "min-ratings-over-the-most",
            json!({"minRatings": 1_000_001}),
            "minRatings",
            messages::MIN_RATINGS,
        ),
        row_of_type(
            "min-ratings-is-a-fraction",
            json!({"minRatings": 1.5}),
            "minRatings",
            messages::MIN_RATINGS,
            "must be of type integer",
        ),
        row_of_type(
            "min-ratings-is-text",
            json!({"minRatings": "1"}),
            "minRatings",
            messages::MIN_RATINGS,
            "must be of type integer",
        ),
        row("limit-is-0", json!({"limit": 0}), "limit", messages::LIMIT),
        row(
            "limit-over-the-most",
            json!({"limit": 1_000_001}),
            "limit",
            messages::LIMIT,
        ),
        row_of_type(
            "limit-is-text",
            json!({"limit": "10"}),
            "limit",
            messages::LIMIT,
            "must be of type integer",
        ),
        row(
            "prior-weight-below-0",
            json!({"priorWeight": -5}),
            "priorWeight",
            messages::PRIOR_WEIGHT,
        ),
        row(
            "prior-weight-over-the-most",
            json!({"priorWeight": 100_001}),
            "priorWeight",
            messages::PRIOR_WEIGHT,
        ),
        row(
            "compression-is-zip",
            json!({"compression": "zip"}),
            "compression",
            messages::COMPRESSION,
        ),
        row(
            "compression-in-capitals",
            json!({"compression": "GZIP"}),
            "compression",
            messages::COMPRESSION,
        ),
        row_of_type(
            "compression-is-a-boolean",
            json!({"compression": true}),
            "compression",
            messages::COMPRESSION,
            "must be of type string",
        ),
        row_of_type(
            "spreadsheet-safe-is-text",
            json!({"spreadsheetSafe": "yes"}),
            "spreadsheetSafe",
            messages::SPREADSHEET_SAFE,
            "must be of type boolean",
        ),
        row_of_type(
            "unknown-field",
            json!({"minRating": 5}),
            "minRating",
            messages::UNKNOWN,
            "unknown field \"spec.minRating\"",
        ),
        row_of_type(
            "field-in-another-case",
            json!({"Genre": "Rock"}),
            "Genre",
            messages::UNKNOWN,
            "unknown field \"spec.Genre\"",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use domain::Parameters;

    use super::*;

    #[test]
    fn the_domain_refuses_every_row_with_its_text() {
        for bad in bad_parameters() {
            let errors = Parameters::from_json(&bad.parameters).expect_err(bad.name);

            let said: Vec<_> = errors
                .0
                .iter()
                .map(|error| (error.pointer.clone(), error.property.as_str(), error.message))
                .collect();
            assert_eq!(said, [(bad.pointer(), bad.property, bad.message)], "{}", bad.name);
        }
    }

    #[test]
    fn every_row_has_a_name_of_its_own() {
        let rows = bad_parameters();
        let names: HashSet<_> = rows.iter().map(|bad| bad.name).collect();

        assert_eq!(names.len(), rows.len());
    }
}
