//! A request, and what it leaves behind at once.

use reqwest::header::{LOCATION, RETRY_AFTER};
use reqwest::{Method, StatusCode};
use serde_json::json;
use testkit::reports::SOON;
use testkit::{Part, Release, in_a_world, tokens, until};
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread")]
async fn a_post_is_accepted_as_pending_and_leaves_one_row_one_message_and_one_custom_resource() {
    in_a_world(async |world| {
        let release = Release::setup(world).without(Part::Operator).install().await;
        let application = release.application();

        let answer = application.request(&json!({"minRatings": 3})).await;

        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.body);
        assert_eq!(answer.body["status"], "Pending");
        let id = answer.report_id();
        let location = answer.headers[LOCATION].to_str().unwrap();
        assert!(location.ends_with(&format!("/reports/{id}")), "{location}");
        let wait: u32 = answer.headers[RETRY_AFTER].to_str().unwrap().parse().unwrap();
        assert!(wait > 0);

        assert_eq!(world.database.reports().await, [id]);
        let row = world.database.report(id).await.unwrap();
        assert_eq!(row.state(), "Pending");
        let messages = world.database.outbox(id).await;
        assert_eq!(messages.len(), 1);
        assert_eq!(messages[0]["type"], "ExportRequested");
        assert!(
            messages[0]["processed_at"].is_null(),
            "no operator is there to relay it"
        );

        let created = async || world.custom_resource(id).await;
        let custom_resource = until("the custom resource is there", SOON, created).await;
        assert_eq!(custom_resource.metadata.name.unwrap(), format!("report-{id}"));
        assert_eq!(custom_resource.spec.min_ratings, 3);
        assert_eq!(world.cluster.reports().await.len(), 1);
        assert!(world.cluster.jobs().await.is_empty());

        let polled = application.report(id).await;
        assert_eq!(polled.status, StatusCode::OK);
        assert_eq!(polled.body["status"], "Pending");
        assert_eq!(polled.body["parameters"]["minRatings"], 3);
        assert_eq!(
            polled.body["parameters"]["priorWeight"], 10,
            "defaults are echoed"
        );
        assert!(
            polled
                .body
                .get("downloadUrl")
                .is_none_or(serde_json::Value::is_null)
        );
        assert!(polled.headers.contains_key(RETRY_AFTER));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_without_a_good_token_gets_anything_and_nothing_is_written() {
    in_a_world(async |world| {
        let release = Release::setup(world).without(Part::Operator).install().await;
        let user = Uuid::new_v4();
        let id = release
            .application_of(&tokens::a_user(user))
            .accepted(&json!({}))
            .await;
        let bad = [
            tokens::a_user(user).signed_with("another key for tests, just as long as the first"),
            tokens::a_user(user).claim("exp", 1_600_000_000),
            tokens::a_user(user).claim("iss", "somebody"),
            tokens::a_user(user).claim("aud", "something"),
            tokens::a_user(user).claim("userid", "not-a-uuid"),
        ];
        let mut applications: Vec<_> = bad.iter().map(|token| release.application_of(token)).collect();
        applications.push(release.application().anonymous());
        for application in applications {
            let posted = application.request(&json!({})).await;
            assert_eq!(posted.status, StatusCode::UNAUTHORIZED, "{}", posted.body);
            assert!(posted.headers.contains_key("www-authenticate"));
            assert_eq!(application.report(id).await.status, StatusCode::UNAUTHORIZED);
        }
        // Another user's report is not there; an administrator sees it.
        assert_eq!(
            release.application().report(id).await.status,
            StatusCode::NOT_FOUND
        );
        let administrator = tokens::a_user(Uuid::new_v4()).admin();
        assert_eq!(
            release.application_of(&administrator).report(id).await.status,
            StatusCode::OK
        );

        assert_eq!(world.database.reports().await, [id]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_idempotency_key_makes_one_report_and_another_body_is_refused() {
    in_a_world(async |world| {
        let release = Release::setup(world).without(Part::Operator).install().await;
        let application = release.application();
        let post = async |body: serde_json::Value| {
            let headers = [("idempotency-key", "order-7")];
            let answer = application.send(Method::POST, "/reports/popularity", &headers, Some(&body));
            answer.await.unwrap()
        };

        let (first, second) = tokio::join!(post(json!({"limit": 5})), post(json!({"limit": 5})));
        let other = post(json!({"limit": 6})).await;

        assert_eq!(first.status, StatusCode::ACCEPTED, "{}", first.body);
        assert_eq!(second.status, StatusCode::ACCEPTED, "{}", second.body);
        assert_eq!(first.report_id(), second.report_id());
        assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", other.body);
        assert_eq!(world.database.reports().await, [first.report_id()]);
    })
    .await;
}
