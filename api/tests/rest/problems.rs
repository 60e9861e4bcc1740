//! Errors that belong to no call.

use reqwest::{Method, StatusCode};
use rstest::rstest;

use crate::support::{Answer, Api, assert_answer};

#[tokio::test]
async fn an_unknown_path_is_a_problem() {
    let api = Api::start_without_database(&[]).await;

    assert_answer!(Answer::to(api.anonymous(Method::GET, "/reports/popularity/daily")).await);
}

#[tokio::test]
async fn a_method_that_a_path_does_not_take_is_a_problem_that_lists_those_it_takes() {
    let api = Api::start_without_database(&[]).await;

    assert_answer!(Answer::to(api.anonymous(Method::PUT, "/reports/popularity")).await);
}

#[rstest]
#[case::get_on_the_collection(Method::GET, "/reports/popularity", "POST")]
#[case::post_on_the_metrics(Method::POST, "/metrics", "GET,HEAD")]
#[case::delete_on_a_report(Method::DELETE, "/reports/0190b7c4-0000-7000-8000-000000000001", "GET,HEAD")]
#[tokio::test]
async fn allow_names_the_methods(#[case] method: Method, #[case] path: &str, #[case] allow: &str) {
    let api = Api::start_without_database(&[]).await;

    let answer = Answer::to(api.anonymous(method, path)).await;

    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(answer.problem(), "method-not-allowed");
    assert_eq!(answer.header("allow"), Some(allow));
}

#[tokio::test]
async fn every_answer_has_the_callers_request_id_or_a_new_one() {
    let api = Api::start_without_database(&[]).await;

    let given = Answer::to(
        api.anonymous(Method::GET, "/nowhere")
            .header("x-request-id", "call-7"),
    )
    .await;
    let new = Answer::to(api.anonymous(Method::GET, "/nowhere")).await;

    assert_eq!(given.header("x-request-id"), Some("call-7"));
    assert!(uuid::Uuid::try_parse(new.header("x-request-id").unwrap()).is_ok());
}

#[tokio::test]
async fn what_the_database_says_stays_in_the_log() {
    let api = Api::start().await;
    sqlx::query("ALTER TABLE reports RENAME TO reports_elsewhere")
        .execute(&api.database().admin_pool)
        .await
        .unwrap();

    assert_answer!(Answer::to(api.post()).await);
}
