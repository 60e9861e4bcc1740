//! `downloadUrl`: minted at each GET, short-lived, and not missed when it cannot be made.

use std::collections::HashMap;

use domain::Artifact;
use jiff::{SignedDuration, Timestamp};
use reqwest::StatusCode;
use reqwest::header::IF_NONE_MATCH;
use url::Url;

use crate::support::{Answer, Api, an_artifact};

#[tokio::test]
async fn the_link_reads_one_blob_at_the_public_endpoint_for_fifteen_minutes() {
    let api = Api::start().await;
    let id = api.a_report().await;
    api.complete(id).await;
    let before = Timestamp::now();

    let answer = Answer::to(api.get(&format!("/reports/{id}"))).await;

    let url = Url::parse(answer.body["downloadUrl"].as_str().unwrap()).unwrap();
    let query: HashMap<_, _> = url.query_pairs().into_owned().collect();
    assert_eq!(url.host_str(), Some("files.example"));
    assert_eq!(url.path(), format!("/devstoreaccount1/reports/{id}.csv"));
    assert_eq!(query["sp"], "r");
    assert_eq!(query["sr"], "b");
    assert_eq!(query["spr"], "https");
    assert_eq!(query["rscd"], format!("attachment; filename=\"{id}.csv\""));
    assert!(!query["sig"].is_empty());
    assert_eq!(answer.body["downloadUrlExpiresAt"], query["se"]);
    let lifetime = query["se"].parse::<Timestamp>().unwrap().duration_since(before);
    assert!(
        (SignedDuration::from_mins(14)..=SignedDuration::from_mins(15) + SignedDuration::from_secs(5))
            .contains(&lifetime),
        "{lifetime}"
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn while_the_link_is_young_its_answer_still_holds() {
    let api = Api::start().await;
    let id = api.a_report().await;
    api.complete(id).await;
    let path = format!("/reports/{id}");

    // the tag may change between the two, once in five minutes; it cannot twice
    let mut statuses = Vec::new();
    for _ in 0..2 {
        let tag = Answer::to(api.get(&path))
            .await
            .header("etag")
            .unwrap()
            .to_owned();
        statuses.push(Answer::to(api.get(&path).header(IF_NONE_MATCH, tag)).await.status);
    }

    assert!(statuses.contains(&StatusCode::NOT_MODIFIED), "{statuses:?}");
}

#[tokio::test]
async fn without_the_storage_the_report_is_answered_and_says_why_there_is_no_link() {
    let api = Api::start().await;
    let id = api.a_report().await;
    api.complete(id).await;
    // only now has the storage to be asked, and it listens nowhere
    api.delete_custom_resource(id).await;

    let answer = Answer::to(api.get(&format!("/reports/{id}"))).await;

    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.body["status"], "Completed");
    assert_eq!(answer.body["downloadUrl"], serde_json::Value::Null);
    assert_eq!(answer.body["downloadUnavailable"]["code"], "storage-unavailable");
}

#[tokio::test]
async fn a_file_in_another_container_gets_no_link() {
    let api = Api::start().await;
    let id = api.a_report().await;
    let artifact = Artifact {
        container: "archive".to_owned(),
        ..an_artifact(id)
    };
    api.complete_with(id, artifact).await;

    let answer = Answer::to(api.get(&format!("/reports/{id}"))).await;

    assert_eq!(answer.body["downloadUrl"], serde_json::Value::Null);
    assert_eq!(answer.body["downloadUnavailable"]["code"], "other-container");
}

#[tokio::test]
async fn no_link_is_stored() {
    let api = Api::start().await;
    let id = api.a_report().await;
    api.complete(id).await;
    Answer::to(api.get(&format!("/reports/{id}"))).await;

    let row: String = sqlx::query_scalar("SELECT to_jsonb(reports)::text FROM reports")
        .fetch_one(&api.database().admin_pool)
        .await
        .unwrap();

    assert!(!row.contains("sig=") && !row.contains("http"), "{row}");
}
