//! How many unfinished reports a user may have.

use domain::FailureReason;
use reqwest::{Method, StatusCode};

use crate::support::{Answer, Api, OTHER_USER, Token};

#[tokio::test]
async fn one_report_too_many_is_refused_until_one_has_ended() {
    let api = Api::start_with(&["--max-unfinished-per-user=2"]).await;
    let first = Answer::to(api.post()).await.report_id();
    Answer::to(api.post()).await.report_id();

    let refused = Answer::to(api.post()).await;
    api.fail(first, FailureReason::Cancelled).await;
    let accepted = Answer::to(api.post()).await;

    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.problem(), "too-many-unfinished-reports");
    assert_eq!(
        refused.body["detail"],
        "one may have 2 unfinished reports; ask again when one of yours has ended"
    );
    assert_eq!(
        refused.header("retry-after"),
        Some("5"),
        "none has been completed yet"
    );
    assert_eq!(accepted.status, StatusCode::ACCEPTED);
    assert_eq!(api.rows().await, 3, "nothing of the refused one is stored");
}

#[tokio::test]
async fn the_limit_of_one_user_is_not_anothers() {
    let api = Api::start_with(&["--max-unfinished-per-user=1"]).await;
    Answer::to(api.post()).await.report_id();

    let theirs = Answer::to(
        api.anonymous(Method::POST, "/reports/popularity")
            .bearer_auth(Token::of(OTHER_USER).signed()),
    )
    .await;

    assert_eq!(theirs.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_retry_is_answered_at_the_limit_too() {
    let api = Api::start_with(&["--max-unfinished-per-user=1"]).await;
    let first = Answer::to(api.post().header("idempotency-key", "monthly")).await;

    let again = Answer::to(api.post().header("idempotency-key", "monthly")).await;

    assert_eq!(again.status, StatusCode::ACCEPTED);
    assert_eq!(again.report_id(), first.report_id());
}
