//! `POST /reports/popularity`: what is taken, and what is refused.

use jiff::{SignedDuration, Timestamp};
use reqwest::StatusCode;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE};
use rstest::rstest;
use serde_json::json;

use crate::support::{Answer, Api, USER, assert_answer};

#[tokio::test]
async fn a_request_without_a_body_is_one_for_the_defaults() {
    let api = Api::start().await;

    let answer = Answer::to(api.post()).await;

    assert_answer!(answer);
    assert_eq!(
        answer.header("location"),
        Some(format!("/reports/{}", answer.report_id()).as_str())
    );
}

#[tokio::test]
async fn every_parameter_is_taken_and_echoed() {
    let api = Api::start().await;

    let answer = Answer::to(api.post().json(&json!({
        "from": "2025-01-01T00:00:00+02:00",
        "to": "2026-01-01T00:00:00Z",
        "genre": "Trip Hop",
        "minRatings": 3,
        "limit": 50,
        "priorWeight": 25,
        "compression": "gzip",
        "spreadsheetSafe": false,
    })))
    .await;

    assert_answer!(answer);
    assert_eq!(answer.body["parameters"]["from"], "2024-12-31T22:00:00Z");
    assert_eq!(answer.body["parameters"]["to"], "2026-01-01T00:00:00Z");
}

#[tokio::test]
async fn an_accepted_report_is_one_row_and_one_message() {
    let api = Api::start().await;
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let before = Timestamp::now();

    let answer = Answer::to(api.post().header("traceparent", traceparent)).await;

    let id = answer.report_id();
    let report = store::reports::get(&api.database().api_pool, id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(report.requested_by, Some(USER));
    assert_eq!(report.traceparent.as_deref(), Some(traceparent));
    assert_eq!(
        report.expires_at.duration_since(report.created_at),
        SignedDuration::from_hours(7 * 24)
    );
    assert!(report.created_at >= before - SignedDuration::from_millis(1));
    let messages: Vec<String> = sqlx::query_scalar("SELECT payload->>'reportId' FROM outbox_messages")
        .fetch_all(&api.database().admin_pool)
        .await
        .unwrap();
    assert_eq!((api.rows().await, messages), (1, vec![id.to_string()]));
}

#[tokio::test]
async fn a_request_without_a_trace_begins_one() {
    let api = Api::start().await;

    let answer = Answer::to(api.post().header("traceparent", "nonsense")).await;

    let report = store::reports::get(&api.database().api_pool, answer.report_id()).await;
    let traceparent = report.unwrap().unwrap().traceparent.unwrap();
    assert!(
        traceparent.starts_with("00-") && traceparent.len() == 55,
        "{traceparent}"
    );
}

#[tokio::test]
async fn rest_refuses_what_the_custom_resource_refuses_with_the_same_words() {
    let api = Api::start().await;

    for bad in crds::testing::bad_parameters() {
        let answer = Answer::to(api.post().json(&bad.parameters)).await;

        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", bad.name);
        assert_eq!(answer.problem(), "invalid-parameters", "{}", bad.name);
        assert_eq!(
            answer.body["errors"],
            json!([{ "pointer": bad.pointer(), "propertyName": bad.property, "message": bad.message }]),
            "{}",
            bad.name
        );
    }
    assert_eq!(api.rows().await, 0);
}

#[tokio::test]
async fn every_wrong_field_is_named_at_once() {
    let api = Api::start_without_database(&[]).await;

    let answer = Answer::to(api.post().json(&json!({
        "from": "2026-02-01T00:00:00Z",
        "to": "2026-01-01T00:00:00Z",
        "limit": 0,
        "compression": "zip",
        "minRating": 5,
        "a/b~c": true,
    })))
    .await;

    assert_answer!(answer);
}

#[rstest]
#[case::not_json("{\"limit\": }")]
#[case::cut_off("{\"limit\": 5")]
#[case::two_documents("{} {}")]
#[case::not_utf_8_json("{\"genre\": \"\\ud800\"}")]
#[tokio::test]
async fn a_body_that_is_not_json_is_refused_with_the_place(#[case] body: &'static str) {
    let api = Api::start_without_database(&[]).await;

    let answer = Answer::to(api.post().header(CONTENT_TYPE, "application/json").body(body)).await;

    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.problem(), "malformed-body");
    let message = answer.body["errors"][0]["message"].as_str().unwrap();
    assert!(message.contains("line 1 column"), "{message}");
}

#[rstest]
#[case::list("[]")]
#[case::text("\"popularity\"")]
#[case::null("null")]
#[tokio::test]
async fn a_body_that_is_no_object_is_refused(#[case] body: &'static str) {
    let api = Api::start_without_database(&[]).await;

    let answer = Answer::to(api.post().header(CONTENT_TYPE, "application/json").body(body)).await;

    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        answer.body["errors"],
        json!([{ "pointer": "", "propertyName": "", "message": "must be a JSON object of parameters" }])
    );
}

#[tokio::test]
async fn a_body_of_another_type_is_refused() {
    let api = Api::start_without_database(&[]).await;

    let form = Answer::to(
        api.post()
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body("limit=5"),
    )
    .await;
    let compressed = Answer::to(
        api.post()
            .header(CONTENT_TYPE, "application/json")
            .header(CONTENT_ENCODING, "gzip")
            .body("x"),
    )
    .await;

    assert_answer!(form);
    assert_eq!(compressed.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let api = Api::start_without_database(&[]).await;

    let answer = Answer::to(api.post().json(&json!({ "genre": "x".repeat(16 * 1024) }))).await;

    assert_answer!(answer);
}

#[tokio::test]
async fn with_the_database_away_a_request_is_told_to_come_again() {
    let api = Api::start_without_database(&[]).await;

    let answer = Answer::to(api.post()).await;

    assert_answer!(answer);
}

#[tokio::test]
async fn a_database_that_hangs_is_not_waited_for_forever() {
    let api = Api::start_with(&["--request-timeout-seconds=1"]).await;
    let mut lock = api.database().admin_pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE reports")
        .execute(&mut *lock)
        .await
        .unwrap();

    let answer = Answer::to(api.post()).await;

    assert_answer!(answer);
}
