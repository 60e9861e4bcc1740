//! `Idempotency-Key`.

use std::collections::HashSet;

use futures::future::join_all;
use reqwest::{Method, StatusCode};
use rstest::rstest;
use serde_json::json;

use crate::support::{Answer, Api, OTHER_USER, Token, assert_answer};

const KEY: &str = "Idempotency-Key";

#[tokio::test]
async fn the_same_key_and_parameters_get_the_same_answer() {
    let api = Api::start().await;
    let first = Answer::to(api.post().header(KEY, "monthly")).await;

    // the defaults, spelled out, and the key in the quotes of the draft: the same request
    let again = Answer::to(
        api.post()
            .header(KEY, "\"monthly\"")
            .json(&json!({ "minRatings": 1 })),
    )
    .await;

    assert_eq!(
        (again.status, again.body.clone()),
        (first.status, first.body.clone())
    );
    assert_eq!(again.header("location"), first.header("location"));
    assert_eq!(first.header("idempotent-replayed"), None);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(api.rows().await, 1);
}

#[tokio::test]
async fn the_answer_stays_the_same_when_the_report_has_moved_on() {
    let api = Api::start().await;
    let first = Answer::to(api.post().header(KEY, "monthly")).await;
    api.complete(first.report_id()).await;

    let again = Answer::to(api.post().header(KEY, "monthly")).await;

    assert_eq!((again.status, again.body), (first.status, first.body));
}

#[tokio::test]
async fn the_same_key_with_other_parameters_is_refused() {
    let api = Api::start().await;
    Answer::to(api.post().header(KEY, "monthly")).await;

    let other = Answer::to(api.post().header(KEY, "monthly").json(&json!({ "limit": 5 }))).await;

    assert_answer!(other);
    assert_eq!(api.rows().await, 1);
}

#[tokio::test]
async fn a_key_belongs_to_one_user() {
    let api = Api::start().await;
    let mine = Answer::to(api.post().header(KEY, "monthly")).await;

    let theirs = Answer::to(
        api.anonymous(Method::POST, "/reports/popularity")
            .bearer_auth(Token::of(OTHER_USER).signed())
            .header(KEY, "monthly")
            .json(&json!({ "limit": 5 })),
    )
    .await;

    assert_eq!(theirs.status, StatusCode::ACCEPTED);
    assert_ne!(theirs.report_id(), mine.report_id());
}

#[tokio::test]
async fn many_requests_at_once_with_one_key_make_one_report() {
    let api = Api::start().await;

    let answers = join_all((0..20).map(|_| Answer::to(api.post().header(KEY, "monthly")))).await;

    assert!(answers.iter().all(|answer| answer.status == StatusCode::ACCEPTED));
    let ids: HashSet<_> = answers.iter().map(Answer::report_id).collect();
    let new = answers
        .iter()
        .filter(|answer| answer.header("idempotent-replayed").is_none());
    assert_eq!((ids.len(), new.count(), api.rows().await), (1, 1, 1));
}

#[tokio::test]
async fn without_a_key_each_request_is_another_report() {
    let api = Api::start().await;

    let first = Answer::to(api.post()).await;
    let second = Answer::to(api.post()).await;

    assert_ne!(first.report_id(), second.report_id());
}

#[rstest]
#[case::empty(&[""])]
#[case::too_long(&["kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk"])]
#[case::beyond_ascii(&["schlüssel"])]
#[case::twice(&["one", "two"])]
#[tokio::test]
async fn a_key_that_cannot_be_one_is_refused(#[case] keys: &[&str]) {
    let api = Api::start_without_database(&[]).await;
    let request = keys
        .iter()
        .fold(api.post(), |request, key| request.header(KEY, *key));

    let answer = Answer::to(request).await;

    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.problem(), "invalid-idempotency-key");
    assert_eq!(
        answer.body["errors"],
        json!([{
            "propertyName": "Idempotency-Key",
            "message": "must be 1 to 255 printable ASCII characters, given once",
        }])
    );
}
