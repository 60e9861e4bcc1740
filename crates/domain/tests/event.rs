//! The message that travels: its shape is a promise to whoever reads the queue or the outbox.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "in an integration target clippy's leave for tests reaches the test functions only"
)]

use std::error::Error as _;

use domain::{EventError, ExportRequested, Parameters};
use rstest::rstest;
use serde_json::{Value, json};

fn an_event(parameters: Value) -> ExportRequested {
    ExportRequested::new(
        "01a20de1-78a3-7543-818e-996953d36155".parse().unwrap(),
        Parameters::from_json(&parameters).unwrap(),
        "2026-03-01T10:00:00.123456Z".parse().unwrap(),
    )
}

fn body_with(change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> Vec<u8> {
    let mut body = serde_json::to_value(an_event(json!({}))).unwrap();
    change(body.as_object_mut().unwrap());
    body.to_string().into_bytes()
}

#[test]
fn version_1_is_written_like_this() {
    let all = an_event(json!({
        "from": "2026-01-01T01:00:00+01:00", "to": "2026-02-01T00:00:00.5Z", "genre": "Jazz", "minRatings": 3,
        "limit": 50, "priorWeight": 0, "compression": "gzip", "spreadsheetSafe": false,
    }));

    insta::assert_json_snapshot!(all, @r#"
    {
      "version": 1,
      "reportId": "01a20de1-78a3-7543-818e-996953d36155",
      "parameters": {
        "from": "2026-01-01T00:00:00Z",
        "to": "2026-02-01T00:00:00.5Z",
        "genre": "Jazz",
        "minRatings": 3,
        "limit": 50,
        "priorWeight": 0,
        "compression": "gzip",
        "spreadsheetSafe": false
      },
      "requestedAt": "2026-03-01T10:00:00.123456Z"
    }
    "#);
}

#[test]
fn version_1_leaves_out_what_was_not_asked() {
    insta::assert_json_snapshot!(an_event(json!({})), @r#"
    {
      "version": 1,
      "reportId": "01a20de1-78a3-7543-818e-996953d36155",
      "parameters": {
        "minRatings": 1,
        "priorWeight": 10,
        "compression": "none",
        "spreadsheetSafe": true
      },
      "requestedAt": "2026-03-01T10:00:00.123456Z"
    }
    "#);
}

#[test]
fn the_names_that_route_it_do_not_change() {
    assert_eq!(ExportRequested::TYPE, "ExportRequested");
    assert_eq!(ExportRequested::AGGREGATE_TYPE, "popularity-report");
    assert_eq!(ExportRequested::VERSION, 1);
}

#[rstest]
#[case(json!({}))]
#[case(json!({"from": "2026-01-01T00:00:00Z", "genre": "音楽; \"quoted\"", "limit": 1}))]
fn an_event_reads_back_what_it_wrote(#[case] parameters: Value) {
    let event = an_event(parameters);

    let read = ExportRequested::from_slice(&serde_json::to_vec(&event).unwrap()).unwrap();

    assert_eq!(read, event);
}

#[test]
fn fields_that_this_version_does_not_know_are_passed_over() {
    let body = body_with(|body| {
        body.insert("priority".to_owned(), json!("high"));
    });

    assert_eq!(ExportRequested::from_slice(&body).unwrap(), an_event(json!({})));
}

#[rstest]
#[case::a_later_one(2)]
#[case::a_much_later_one(4_294_967_295)]
#[case::none_that_ever_was(0)]
fn another_version_is_named_even_if_its_shape_is_unknown(#[case] version: u32) {
    let body = json!({"version": version, "entirely": {"different": true}}).to_string();

    let error = ExportRequested::from_slice(body.as_bytes()).unwrap_err();

    assert!(
        matches!(error, EventError::UnsupportedVersion(named) if named == version),
        "{error:?}"
    );
    let expected = format!("the message has version {version}, and this operator understands version 1 only");
    assert_eq!(error.to_string(), expected);
}

#[rstest]
#[case::empty(b"".to_vec())]
#[case::not_text(vec![0xff, 0xfe, 0x00])]
#[case::not_json(b"ExportRequested".to_vec())]
#[case::cut_short(br#"{"version": 1, "reportId": "01a20de1"#.to_vec())]
#[case::not_an_object(b"[1]".to_vec())]
#[case::without_a_version(body_with(|body| { body.remove("version"); }))]
#[case::version_is_a_text(body_with(|body| { body.insert("version".to_owned(), json!("1")); }))]
#[case::version_is_negative(body_with(|body| { body.insert("version".to_owned(), json!(-1)); }))]
#[case::without_a_report(body_with(|body| { body.remove("reportId"); }))]
#[case::report_is_no_uuid(body_with(|body| { body.insert("reportId".to_owned(), json!("42")); }))]
#[case::without_parameters(body_with(|body| { body.remove("parameters"); }))]
#[case::wrong_parameters(body_with(|body| { body.insert("parameters".to_owned(), json!({"limit": 0})); }))]
#[case::without_a_time(body_with(|body| { body.remove("requestedAt"); }))]
#[case::time_is_a_number(body_with(|body| { body.insert("requestedAt".to_owned(), json!(0)); }))]
#[case::more_after_it(b"{\"version\": 1} {}".to_vec())]
fn a_body_that_is_no_event_is_malformed_and_says_why(#[case] body: Vec<u8>) {
    let error = ExportRequested::from_slice(&body).unwrap_err();

    assert!(matches!(error, EventError::Malformed(_)), "{error:?}");
    assert_eq!(error.to_string(), "the body is not an ExportRequested message");
    assert!(!error.source().unwrap().to_string().is_empty());
}
