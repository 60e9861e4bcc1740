//! Attempts that cannot succeed: the exit code, the reason, the text, and nothing left behind.

use std::time::Duration;

use domain::{FailureReason, ReportId, State};
use exporter::Error;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::{World, config};

/// The attempt fails like this, shows no secret, and leaves nothing visible.
async fn fails(world: &World, id: ReportId, error: Error, code: u8, reason: FailureReason, text: &str) {
    let failure = error.failure();
    assert_eq!((error.exit_code(), failure.reason), (code, reason), "{failure:?}");
    assert!(failure.message.contains(text), "{failure:?}");
    assert!(failure.message.starts_with(reason.advice()), "{failure:?}");
    for secret in ["AccountKey=", azurite::KEY, "test-only", "d3Jvbmd"] {
        assert!(!format!("{failure:?} {error:?}").contains(secret), "{error:?}");
    }
    assert_eq!(world.blobs().await, []);
    assert!(
        !world.report(id).await.state().is_terminal(),
        "to fail a report is the operator's"
    );
}

#[tokio::test]
async fn a_missing_table_is_the_catalogues_refusal() {
    let world = World::with_catalogue().await;
    world.sql("DROP TABLE ratings").await;
    let id = world.a_report(json!({})).await;
    let error = world.export(id).await.unwrap_err();
    let text = "relation \"ratings\" does not exist";
    fails(&world, id, error, 65, FailureReason::CatalogRejected, text).await;
}

#[tokio::test]
async fn a_missing_permission_is_the_catalogues_refusal() {
    let world = World::with_catalogue().await;
    world
        .sql("REVOKE SELECT ON album_artists FROM popularity_reports_exporter")
        .await;
    let id = world.a_report(json!({})).await;
    let error = world.export(id).await.unwrap_err();
    let text = "permission denied for table album_artists";
    fails(&world, id, error, 65, FailureReason::CatalogRejected, text).await;
}

#[tokio::test]
async fn a_catalogue_that_is_away_is_tried_again() {
    let world = World::with_catalogue().await;
    let id = world.a_report(json!({})).await;
    let mut options = world.options(id);
    options[2].1 = "postgres://reader:test-only@127.0.0.1:1/catalogue".into();
    let error = exporter::run(&config(&options), &CancellationToken::new())
        .await
        .unwrap_err();
    let text = "failed to open a snapshot";
    fails(&world, id, error, 75, FailureReason::CatalogUnavailable, text).await;
}

#[tokio::test]
async fn storage_that_is_away_is_tried_again() {
    let world = World::with_catalogue().await;
    let id = world.a_report(json!({})).await;
    let mut options = world.options(id);
    options[3].1 = format!(
        "AccountName=acct;AccountKey={};BlobEndpoint=http://127.0.0.1:1/acct",
        azurite::KEY
    );
    let error = exporter::run(&config(&options), &CancellationToken::new())
        .await
        .unwrap_err();
    let text = "failed to ensure that container";
    fails(&world, id, error, 75, FailureReason::StorageUnavailable, text).await;
}

#[tokio::test]
async fn databases_that_come_back_are_waited_for() {
    let world = World::with_catalogue().await;
    let id = world.a_report(json!({})).await;
    let mut options = world.options(id);
    options[5].1 = "60s".into();
    let (config, shutdown) = (config(&options), CancellationToken::new());
    // an outage of a second: the server turns every login away but the owner's
    let name = &world.database.name;
    world
        .sql(&format!("ALTER DATABASE {name} CONNECTION LIMIT 0"))
        .await;
    let outage = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world
            .sql(&format!("ALTER DATABASE {name} CONNECTION LIMIT -1"))
            .await;
    };
    let (outcome, ()) = tokio::join!(exporter::run(&config, &shutdown), outage);
    assert!(matches!(outcome.unwrap(), exporter::Outcome::Completed(_)));
}

#[tokio::test]
async fn a_date_that_the_report_cannot_express_is_bad_data() {
    let world = World::with_catalogue().await;
    world.sql("UPDATE ratings SET created_at = '-infinity'").await;
    let id = world.a_report(json!({})).await;
    let error = world.export(id).await.unwrap_err();
    fails(
        &world,
        id,
        error,
        65,
        FailureReason::InvalidData,
        "failed to read the albums",
    )
    .await;
}

#[tokio::test]
async fn a_wrong_storage_key_is_the_storages_refusal() {
    let world = World::with_catalogue().await;
    let id = world.a_report(json!({})).await;
    let mut options = world.options(id);
    let (before, after) = world.connection_string.split_once("AccountKey=").unwrap();
    let rest = after.split_once(';').map_or("", |(_, rest)| rest);
    options[3].1 = format!("{before}AccountKey=d3Jvbmdrb25nd3Jvbmc=;{rest}");
    let error = exporter::run(&config(&options), &CancellationToken::new())
        .await
        .unwrap_err();
    fails(
        &world,
        id,
        error,
        65,
        FailureReason::StorageRejected,
        "status 403",
    )
    .await;
}

#[tokio::test]
async fn a_connection_string_that_cannot_be_read_is_the_storages_refusal() {
    let world = World::with_catalogue().await;
    let id = world.a_report(json!({})).await;
    let mut options = world.options(id);
    options[3].1 = "AccountName=x".into();
    let error = exporter::run(&config(&options), &CancellationToken::new())
        .await
        .unwrap_err();
    fails(
        &world,
        id,
        error,
        65,
        FailureReason::StorageRejected,
        "AccountKey is missing",
    )
    .await;
}

#[tokio::test]
async fn stored_parameters_that_are_not_valid_are_never_retried() {
    let world = World::with_catalogue().await;
    let id = world.a_report(json!({})).await;
    world
        .sql(r#"UPDATE reports SET parameters = '{"limit": 0, "color": "red"}'"#)
        .await;
    let error = world.export(id).await.unwrap_err();
    let failure = error.failure();
    assert_eq!(
        (error.exit_code(), failure.reason),
        (64, FailureReason::InvalidParameters)
    );
    assert!(
        failure
            .message
            .contains("limit must be a whole number from 1 to 1000000"),
        "{failure:?}"
    );
    assert!(
        failure.message.contains("color is not a parameter"),
        "{failure:?}"
    );
    assert_eq!(world.blobs().await, []);
}

#[tokio::test]
async fn a_report_that_does_not_exist_is_not_made_up() {
    let world = World::with_catalogue().await;
    let id = ReportId::new(Uuid::now_v7());
    let error = world.export(id).await.unwrap_err();
    assert!(
        matches!(error, Error::UnknownReport(unknown) if unknown == id),
        "{error}"
    );
    assert_eq!(error.exit_code(), 65);
    assert_eq!(world.blobs().await, []);
}

#[tokio::test]
async fn a_cancelled_report_is_not_begun() {
    let world = World::with_catalogue().await;
    let id = world.a_report(json!({})).await;
    let failure = domain::Failure::new(FailureReason::Cancelled, "");
    store::reports::fail(
        &world.database.operator_pool,
        id,
        &failure,
        jiff::Timestamp::now(),
    )
    .await
    .unwrap();
    let outcome = world.export(id).await.unwrap();
    assert_eq!(outcome, exporter::Outcome::Superseded(State::Failed));
    assert_eq!(world.blobs().await, []);
}
