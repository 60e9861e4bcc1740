//! Entity tags of reports (RFC 9110, section 8.8.3).

use axum::http::HeaderValue;
use domain::{Progress, Report};

/// The tag of an answer about this report. It is weak: two answers with the same tag say the same,
/// and may differ in the signature of the link.
///
/// `period` goes into the tag of a completed report, so that a 304 never stands for an answer whose
/// link is about to end; see [`crate::downloads::Downloads::period`].
pub fn of(report: &Report, period: i64) -> HeaderValue {
    let version = report.updated_at.as_microsecond();
    let tag = match report.progress {
        Progress::Completed { .. } => format!("W/\"{version:x}-{period:x}\""),
        _ => format!("W/\"{version:x}\""),
    };
    HeaderValue::try_from(tag).unwrap_or_else(|_| HeaderValue::from_static("W/\"\""))
}

/// Whether `If-None-Match` names the tag, by the weak comparison (RFC 9110, section 13.1.2).
pub fn matches_any<'a>(known: impl Iterator<Item = &'a HeaderValue>, tag: &HeaderValue) -> bool {
    fn opaque(tag: &str) -> &str {
        tag.trim().strip_prefix("W/").unwrap_or(tag.trim())
    }
    let Ok(tag) = tag.to_str() else { return false };
    known
        .filter_map(|value| value.to_str().ok())
        // our tags hold no comma
        .flat_map(|value| value.split(','))
        .any(|candidate| candidate.trim() == "*" || opaque(candidate) == opaque(tag))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::same(&["W/\"1f\""], true)]
    #[case::strong_form_of_it(&["\"1f\""], true)]
    #[case::in_a_list(&["\"a\", W/\"1f\" , \"b\""], true)]
    #[case::in_a_second_header(&["\"a\"", "W/\"1f\""], true)]
    #[case::anything(&["*"], true)]
    #[case::other(&["W/\"1e\""], false)]
    #[case::without_quotes(&["1f"], false)]
    #[case::none(&[], false)]
    fn tags_are_compared_weakly(#[case] known: &[&str], #[case] matches: bool) {
        let known: Vec<HeaderValue> = known.iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(
            matches_any(known.iter(), &HeaderValue::from_static("W/\"1f\"")),
            matches
        );
    }
}
