//! One table of what REST and the custom resource take and refuse.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in an integration target clippy's leave for tests reaches the test functions only"
)]

use std::sync::LazyLock;

use domain::{
    Compression, GENRE_MAX_LEN, Instant, LIMIT_MAX, MIN_RATINGS_MAX, PRIOR_WEIGHT_MAX, Parameters,
    TIMESTAMP_PATTERN, messages,
};
use proptest::prelude::*;
use regex::Regex;
use rstest::rstest;
use serde_json::{Value, json};

fn defaults_but(change: impl FnOnce(&mut Parameters)) -> Parameters {
    let mut parameters = Parameters::default();
    change(&mut parameters);
    parameters
}

fn instant(text: &str) -> Option<Instant> {
    Some(text.parse().unwrap())
}

#[rstest]
#[case::nothing(json!({}), defaults_but(|_| {}))]
#[case::nulls_take_the_defaults(
    json!({"from": null, "to": null, "genre": null, "minRatings": null, "limit": null, "priorWeight": null,
           "compression": null, "spreadsheetSafe": null}),
    defaults_but(|_| {})
)]
#[case::from(json!({"from": "2026-01-31T00:00:00Z"}), defaults_but(|p| p.from = instant("2026-01-31T00:00:00Z")))]
#[case::from_with_an_offset(
    json!({"from": "2026-01-31T01:30:00.000001+01:30"}),
    defaults_but(|p| p.from = instant("2026-01-31T00:00:00.000001Z"))
)]
#[case::to(json!({"to": "2999-12-31T23:59:59-23:59"}), defaults_but(|p| p.to = instant("2999-12-31T23:59:59-23:59")))]
#[case::a_window_of_a_microsecond(
    json!({"from": "2026-01-01T00:00:00.000000Z", "to": "2026-01-01T00:00:00.000001Z"}),
    defaults_but(|p| {
        p.from = instant("2026-01-01T00:00:00Z");
        p.to = instant("2026-01-01T00:00:00.000001Z");
    })
)]
#[case::the_leap_day(json!({"from": "2024-02-29T00:00:00Z"}), defaults_but(|p| p.from = instant("2024-02-29T00:00:00Z")))]
#[case::genre(json!({"genre": "Drum & Bass"}), defaults_but(|p| p.genre = Some("Drum & Bass".to_owned())))]
#[case::genre_is_kept_exactly(json!({"genre": " J-Pop '; -- "}), defaults_but(|p| p.genre = Some(" J-Pop '; -- ".to_owned())))]
#[case::genre_is_counted_in_characters(
    json!({"genre": "音".repeat(GENRE_MAX_LEN)}),
    defaults_but(|p| p.genre = Some("音".repeat(GENRE_MAX_LEN)))
)]
#[case::min_ratings_least(json!({"minRatings": 0}), defaults_but(|p| p.min_ratings = 0))]
#[case::min_ratings_most(json!({"minRatings": 1_000_000}), defaults_but(|p| p.min_ratings = MIN_RATINGS_MAX))]
#[case::limit_least(json!({"limit": 1}), defaults_but(|p| p.limit = Some(1)))]
#[case::limit_most(json!({"limit": 1_000_000}), defaults_but(|p| p.limit = Some(LIMIT_MAX)))]
#[case::prior_weight_least(json!({"priorWeight": 0}), defaults_but(|p| p.prior_weight = 0))]
#[case::prior_weight_most(json!({"priorWeight": 100_000}), defaults_but(|p| p.prior_weight = PRIOR_WEIGHT_MAX))]
#[case::compression_none(json!({"compression": "none"}), defaults_but(|_| {}))]
#[case::compression_gzip(json!({"compression": "gzip"}), defaults_but(|p| p.compression = Compression::Gzip))]
#[case::exact_cells(json!({"spreadsheetSafe": false}), defaults_but(|p| p.spreadsheet_safe = false))]
fn valid_parameters_are_read_with_their_defaults(#[case] value: Value, #[case] expected: Parameters) {
    assert_eq!(Parameters::from_json(&value), Ok(expected));
}

#[rstest]
#[case::from_without_an_offset(json!({"from": "2026-01-31T00:00:00"}), "from", messages::TIMESTAMP)]
#[case::from_is_a_date(json!({"from": "2026-01-31"}), "from", messages::TIMESTAMP)]
#[case::from_is_empty(json!({"from": ""}), "from", messages::TIMESTAMP)]
#[case::from_is_a_number(json!({"from": 1_772_359_200}), "from", messages::TIMESTAMP)]
#[case::from_has_nanoseconds(json!({"from": "2026-01-31T00:00:00.0000001Z"}), "from", messages::TIMESTAMP)]
#[case::from_has_a_zone_name(json!({"from": "2026-01-31T00:00:00+01:00[Europe/Oslo]"}), "from", messages::TIMESTAMP)]
#[case::from_is_in_small_letters(json!({"from": "2026-01-31t00:00:00z"}), "from", messages::TIMESTAMP)]
#[case::from_has_a_space(json!({"from": "2026-01-31 00:00:00Z"}), "from", messages::TIMESTAMP)]
#[case::from_has_a_line_after_it(json!({"from": "2026-01-31T00:00:00Z\n"}), "from", messages::TIMESTAMP)]
#[case::from_is_no_day(json!({"from": "2026-02-30T00:00:00Z"}), "from", messages::TIMESTAMP)]
#[case::from_is_no_leap_day(json!({"from": "2026-02-29T00:00:00Z"}), "from", messages::TIMESTAMP)]
#[case::from_is_a_leap_second(json!({"from": "2016-12-31T23:59:60Z"}), "from", messages::TIMESTAMP)]
#[case::from_is_hour_24(json!({"from": "2026-01-31T24:00:00Z"}), "from", messages::TIMESTAMP)]
#[case::from_is_too_early(json!({"from": "0999-12-31T23:59:59Z"}), "from", messages::TIMESTAMP)]
#[case::to_is_too_late(json!({"to": "3000-01-01T00:00:00Z"}), "to", messages::TIMESTAMP)]
#[case::to_is_a_list(json!({"to": ["2026-01-31T00:00:00Z"]}), "to", messages::TIMESTAMP)]
#[case::window_is_empty(
    json!({"from": "2026-01-31T00:00:00Z", "to": "2026-01-31T01:00:00+01:00"}), "from", messages::WINDOW
)]
#[case::window_is_reversed(
    json!({"from": "2026-02-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"}), "from", messages::WINDOW
)]
#[case::genre_is_empty(json!({"genre": ""}), "genre", messages::GENRE)]
#[case::genre_is_too_long(json!({"genre": "x".repeat(GENRE_MAX_LEN + 1)}), "genre", messages::GENRE)]
#[case::genre_has_a_nul(json!({"genre": "Rock\u{0}"}), "genre", messages::GENRE)]
#[case::genre_has_a_line_break(json!({"genre": "Rock\nPop"}), "genre", messages::GENRE)]
#[case::genre_is_a_number(json!({"genre": 80}), "genre", messages::GENRE)]
#[case::min_ratings_is_negative(json!({"minRatings": -1}), "minRatings", messages::MIN_RATINGS)]
#[case::min_ratings_is_too_large(json!({"minRatings": 1_000_001}), "minRatings", messages::MIN_RATINGS)]
#[case::min_ratings_is_a_fraction(json!({"minRatings": 1.5}), "minRatings", messages::MIN_RATINGS)]
#[case::min_ratings_is_a_text(json!({"minRatings": "1"}), "minRatings", messages::MIN_RATINGS)]
#[case::limit_is_zero(json!({"limit": 0}), "limit", messages::LIMIT)]
#[case::limit_is_too_large(json!({"limit": 1_000_001}), "limit", messages::LIMIT)]
#[case::limit_is_huge(json!({"limit": 18_446_744_073_709_551_615_u64}), "limit", messages::LIMIT)]
#[case::prior_weight_is_negative(json!({"priorWeight": -10}), "priorWeight", messages::PRIOR_WEIGHT)]
#[case::prior_weight_is_too_large(json!({"priorWeight": 100_001}), "priorWeight", messages::PRIOR_WEIGHT)]
#[case::prior_weight_is_a_truth(json!({"priorWeight": true}), "priorWeight", messages::PRIOR_WEIGHT)]
#[case::compression_is_unknown(json!({"compression": "zstd"}), "compression", messages::COMPRESSION)]
#[case::compression_is_in_capitals(json!({"compression": "GZIP"}), "compression", messages::COMPRESSION)]
#[case::compression_is_a_truth(json!({"compression": true}), "compression", messages::COMPRESSION)]
#[case::spreadsheet_safe_is_a_text(json!({"spreadsheetSafe": "true"}), "spreadsheetSafe", messages::SPREADSHEET_SAFE)]
#[case::spreadsheet_safe_is_a_number(json!({"spreadsheetSafe": 1}), "spreadsheetSafe", messages::SPREADSHEET_SAFE)]
#[case::unknown_field(json!({"topN": 5}), "topN", messages::UNKNOWN)]
#[case::wrong_case(json!({"MinRatings": 5}), "MinRatings", messages::UNKNOWN)]
fn a_wrong_parameter_is_named_with_what_it_must_be(
    #[case] value: Value,
    #[case] property: &str,
    #[case] message: &str,
) {
    let errors = Parameters::from_json(&value).unwrap_err().0;

    let [error] = errors.as_slice() else {
        panic!("one error, not {errors:?}");
    };
    assert_eq!((error.property.as_str(), error.message), (property, message));
    assert_eq!(error.pointer, format!("/{property}"));
}

#[rstest]
#[case(json!(null))]
#[case(json!([]))]
#[case(json!("from"))]
#[case(json!(7))]
fn parameters_that_are_no_object_are_refused_as_a_whole(#[case] value: Value) {
    let errors = Parameters::from_json(&value).unwrap_err();

    assert_eq!(errors.0.len(), 1);
    assert_eq!(
        (errors.0[0].pointer.as_str(), errors.0[0].message),
        ("", messages::NOT_AN_OBJECT)
    );
    assert_eq!(errors.to_string(), "must be a JSON object of parameters");
}

#[test]
fn every_wrong_field_is_named_at_once_in_the_order_of_the_fields() {
    let value = json!({"zzz": 1, "limit": 0, "genre": "", "from": "yesterday", "priorWeight": "x"});

    let errors = Parameters::from_json(&value).unwrap_err();

    let named: Vec<_> = errors.0.iter().map(|error| error.property.as_str()).collect();
    assert_eq!(named, ["from", "genre", "limit", "priorWeight", "zzz"]);
    assert!(
        errors.to_string().starts_with("from must be an RFC 3339 time"),
        "{errors}"
    );
}

#[test]
fn a_pointer_escapes_what_a_pointer_must_escape() {
    let errors = Parameters::from_json(&json!({"a/b~c": 1})).unwrap_err();

    assert_eq!(errors.0[0].pointer, "/a~1b~0c");
    assert_eq!(errors.0[0].property, "a/b~c");
}

#[test]
fn the_echo_holds_every_default() {
    let echo = serde_json::to_value(Parameters::default()).unwrap();

    let expected =
        json!({"minRatings": 1, "priorWeight": 10, "compression": "none", "spreadsheetSafe": true});
    assert_eq!(echo, expected);
}

#[test]
fn the_texts_name_the_limits_that_the_code_has() {
    assert!(messages::GENRE.contains(&format!("1 to {GENRE_MAX_LEN} characters")));
    assert!(messages::MIN_RATINGS.ends_with(&format!("from 0 to {MIN_RATINGS_MAX}")));
    assert!(messages::LIMIT.ends_with(&format!("from 1 to {LIMIT_MAX}")));
    assert!(messages::PRIOR_WEIGHT.ends_with(&format!("from 0 to {PRIOR_WEIGHT_MAX}")));
    assert!(messages::UNKNOWN.ends_with(&Parameters::FIELDS.join(", ")));
}

static PATTERN: LazyLock<Regex> = LazyLock::new(|| Regex::new(TIMESTAMP_PATTERN).unwrap());

/// Texts near the form: most are of it but for one place.
fn near_a_timestamp() -> impl Strategy<Value = String> {
    let valid = "[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\
                 (\\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])";
    let near = "[0-3][0-9]{3}-[0-1][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{0,8})?(Z|z|[+-][0-2][0-9]:?[0-6][0-9]|)";
    prop_oneof![
        4 => valid,
        4 => near,
        3 => (valid, any::<prop::sample::Index>(), any::<char>()).prop_map(|(text, place, other)| {
            let mut characters: Vec<char> = text.chars().collect();
            let place = place.index(characters.len());
            characters[place] = other;
            characters.into_iter().collect()
        }),
        2 => (valid, any::<prop::sample::Index>()).prop_map(|(mut text, place)| {
            text.remove(place.index(text.len()));
            text
        }),
        1 => any::<String>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// The pattern is what the custom resource's schema says, and the parser is what REST does.
    #[test]
    fn a_time_is_taken_exactly_when_it_has_the_form_and_the_day_exists(text in near_a_timestamp()) {
        let has_the_form = PATTERN.is_match(&text);

        let taken = text.parse::<Instant>();

        let exists = has_the_form && text.parse::<jiff::Timestamp>().is_ok();
        prop_assert_eq!(taken.is_ok(), exists, "{:?}", text);
        if let Ok(instant) = taken {
            prop_assert_eq!(instant.timestamp(), text.parse::<jiff::Timestamp>().unwrap());
        }
    }

    #[test]
    fn what_has_the_form_fails_only_where_the_calendar_has_no_such_day(
        year in 1000_i16..3000, month in 1_i8..=12, day in 1_i8..=31,
    ) {
        let text = format!("{year:04}-{month:02}-{day:02}T23:59:59.999999+23:59");

        let exists = jiff::civil::Date::new(year, month, day).is_ok();

        prop_assert_eq!(text.parse::<Instant>().is_ok(), exists, "{}", text);
    }

    #[test]
    fn any_json_is_either_read_or_refused_with_names(text in "[ -~]{0,12}", number in any::<i64>()) {
        for field in Parameters::FIELDS {
            for value in [json!(text), json!(number), json!([number]), json!({"x": text})] {
                match Parameters::from_json(&json!({field: value})) {
                    Ok(parameters) => {
                        let echo = serde_json::to_value(&parameters).unwrap();
                        prop_assert_eq!(Parameters::from_json(&echo), Ok(parameters));
                    }
                    Err(errors) => prop_assert!(errors.0.iter().all(|error| error.property == field)),
                }
            }
        }
    }
}
