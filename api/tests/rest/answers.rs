//! `GET /reports/{reportId}`: each state, who may see it, and what may be kept.

use domain::FailureReason;
use jiff::{SignedDuration, Timestamp};
use reqwest::header::IF_NONE_MATCH;
use reqwest::{Method, StatusCode};
use rstest::rstest;
use uuid::Uuid;

use crate::support::{Answer, Api, OTHER_USER, Token, assert_answer};

#[tokio::test]
async fn a_pending_report_says_when_to_ask_again() {
    let api = Api::start().await;
    let id = api.a_report().await;

    assert_answer!(Answer::to(api.get(&format!("/reports/{id}"))).await);
}

#[tokio::test]
async fn a_report_in_progress_says_when_it_began() {
    let api = Api::start().await;
    let id = api.a_report().await;
    api.begin(id).await;

    assert_answer!(Answer::to(api.get(&format!("/reports/{id}"))).await);
}

#[tokio::test]
async fn a_completed_report_has_its_file_and_a_link_to_it() {
    let api = Api::start().await;
    let id = api.a_report().await;
    api.complete(id).await;

    assert_answer!(Answer::to(api.get(&format!("/reports/{id}"))).await);
}

#[tokio::test]
async fn a_failed_report_says_why_and_what_to_do() {
    let api = Api::start().await;
    let id = api.a_report().await;
    api.fail(id, FailureReason::StorageRejected).await;

    assert_answer!(Answer::to(api.get(&format!("/reports/{id}"))).await);
}

#[tokio::test]
async fn somebody_elses_report_is_as_if_it_were_not_there() {
    let api = Api::start().await;
    let id = api.a_report().await;
    let theirs = |path: String| {
        api.anonymous(Method::GET, &path)
            .bearer_auth(Token::of(OTHER_USER).signed())
    };

    let existing = Answer::to(theirs(format!("/reports/{id}"))).await;
    let missing = Answer::to(theirs(format!("/reports/{}", Uuid::now_v7()))).await;

    assert_answer!(existing);
    assert_eq!((existing.status, existing.text), (missing.status, missing.text));
}

#[tokio::test]
async fn an_admin_sees_every_report() {
    let api = Api::start().await;
    let of_a_user = api.a_report().await;
    let of_nobody = api.a_report_from_kubernetes().await;

    for id in [of_a_user, of_nobody] {
        let path = format!("/reports/{id}");
        let request = api
            .anonymous(Method::GET, &path)
            .bearer_auth(Token::of_admin().signed());
        assert_eq!(Answer::to(request).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_user_does_not_see_reports_that_came_as_custom_resources() {
    let api = Api::start().await;
    let id = api.a_report_from_kubernetes().await;

    let answer = Answer::to(api.get(&format!("/reports/{id}"))).await;

    assert_eq!(answer.problem(), "report-not-found");
}

#[rstest]
#[case::word("/reports/monthly")]
#[case::short("/reports/0190b7c4-0000-7000-8000")]
#[case::not_utf_8("/reports/%ff")]
#[tokio::test]
async fn an_id_that_is_none_is_named(#[case] path: &str) {
    let api = Api::start_without_database(&[]).await;

    let answer = Answer::to(api.get(path)).await;

    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.problem(), "invalid-report-id");
    assert_eq!(answer.body["errors"][0]["propertyName"], "reportId");
}

#[tokio::test]
async fn an_expired_report_is_gone() {
    let api = Api::start().await;
    let now = Timestamp::now();
    let id = api
        .a_report_that_expires(
            now - SignedDuration::from_hours(2),
            now - SignedDuration::from_hours(1),
        )
        .await;
    api.complete(id).await;

    assert_answer!(Answer::to(api.get(&format!("/reports/{id}"))).await);
}

#[tokio::test]
async fn a_report_that_is_late_is_not_gone_before_it_has_ended() {
    let api = Api::start().await;
    let now = Timestamp::now();
    let id = api
        .a_report_that_expires(
            now - SignedDuration::from_hours(2),
            now - SignedDuration::from_hours(1),
        )
        .await;

    let answer = Answer::to(api.get(&format!("/reports/{id}"))).await;

    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test]
async fn an_answer_that_still_holds_is_not_sent_again() {
    let api = Api::start().await;
    let id = api.a_report().await;
    let path = format!("/reports/{id}");
    let first = Answer::to(api.get(&path)).await;
    let tag = first.header("etag").unwrap().to_owned();

    let unchanged = Answer::to(api.get(&path).header(IF_NONE_MATCH, &tag)).await;
    api.begin(id).await;
    let changed = Answer::to(api.get(&path).header(IF_NONE_MATCH, &tag)).await;

    assert_eq!(unchanged.status, StatusCode::NOT_MODIFIED);
    assert_eq!(
        (unchanged.header("etag"), unchanged.text.as_str()),
        (Some(tag.as_str()), "")
    );
    assert!(unchanged.header("retry-after").is_some());
    assert_eq!(changed.status, StatusCode::OK);
    assert_eq!(changed.body["status"], "Processing");
    assert_ne!(changed.header("etag"), Some(tag.as_str()));
}

#[tokio::test]
async fn a_known_tag_shows_nothing_of_somebody_elses_report() {
    let api = Api::start().await;
    let id = api.a_report().await;
    let path = format!("/reports/{id}");
    let tag = Answer::to(api.get(&path))
        .await
        .header("etag")
        .unwrap()
        .to_owned();

    let theirs = api
        .anonymous(Method::GET, &path)
        .bearer_auth(Token::of(OTHER_USER).signed())
        .header(IF_NONE_MATCH, tag);

    assert_eq!(Answer::to(theirs).await.status, StatusCode::NOT_FOUND);
}
