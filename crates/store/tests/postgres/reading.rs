use rstest::rstest;
use sqlx::AssertSqlSafe;
use store::pool::Login;
use store::reports::{self, Error};
use store::testing;

use crate::fixtures::{Stage, a_report, at, at_stage, requested};

#[tokio::test]
async fn no_report_is_none() {
    let database = testing::database().await;

    let report = reports::get(&database.api_pool, a_report().id).await.unwrap();

    assert_eq!(report, None);
}

#[tokio::test]
async fn the_queue_for_places_holds_dispatched_reports_oldest_first() {
    let database = testing::database().await;
    let mut queued = Vec::new();
    for age in [3, 1, 2] {
        let mut new = a_report();
        new.now = at(age);
        let id = requested(&database, &new).await.id;
        reports::dispatch(&database.operator_pool, id, at(10 - age))
            .await
            .unwrap();
        queued.push((age, id));
    }
    for other in [
        Stage::Accepted,
        Stage::Processing,
        Stage::Completed,
        Stage::FailedWhileProcessing,
    ] {
        at_stage(&database, other).await;
    }
    queued.sort();

    let all = reports::waiting(&database.operator_pool, 10).await.unwrap();
    let two = reports::waiting(&database.operator_pool, 2).await.unwrap();

    let expected: Vec<_> = queued.into_iter().map(|(_, id)| id).collect();
    assert_eq!(all, expected);
    assert_eq!(two, expected[..2]);
}

#[tokio::test]
async fn a_reason_that_this_version_does_not_know_is_named_as_inconsistent() {
    let database = testing::database().await;
    let id = at_stage(&database, Stage::FailedBeforeItBegan).await;
    sqlx::query("UPDATE reports SET failure_reason = 'SolarFlare'")
        .execute(&database.admin_pool)
        .await
        .unwrap();

    let outcome = reports::get(&database.api_pool, id).await;

    let Err(Error::Inconsistent { id: named, column }) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!((named, column), (id, "failure_reason"));
}

#[tokio::test]
async fn a_server_that_is_away_is_told_from_a_refusal() {
    let nobody_there = "postgres://nobody@127.0.0.1:1/nothing".to_owned().into();
    let pool = store::pool::connect(&nobody_there, &Login::Url, 1, "test").unwrap();
    let database = testing::database().await;
    sqlx::query("ALTER TABLE reports RENAME TO elsewhere")
        .execute(&database.admin_pool)
        .await
        .unwrap();

    let away = store::pool::ping(&pool).await.unwrap_err();
    let refused = reports::get(&database.api_pool, a_report().id).await.unwrap_err();

    assert!(store::pool::is_unavailable(&away), "{away}");
    assert!(!refused.is_unavailable(), "{refused}");
}

#[tokio::test]
async fn a_server_that_became_a_replica_is_unavailable_for_writing() {
    let database = testing::database().await;
    sqlx::query(AssertSqlSafe(format!(
        "ALTER DATABASE {} SET default_transaction_read_only = on",
        database.name
    )))
    .execute(&database.admin_pool)
    .await
    .unwrap();
    let pool = testing::pool(&database.api_url, 1);

    let error = reports::request(&pool, &a_report()).await.unwrap_err();

    assert!(error.is_unavailable(), "{error:?}");
}

#[rstest]
#[case::of_another_database("mysql://me:hunter2@db/reports")]
#[case::without_a_scheme("me:hunter2@db/reports")]
#[case::with_a_bad_port("postgres://me:hunter2@db:port/reports")]
#[case::with_a_bad_option("postgres://me:hunter2@db/reports?sslmode=hunter2")]
#[case::empty("")]
#[tokio::test]
async fn a_wrong_url_is_refused_without_showing_the_password(#[case] url: &str) {
    let url = url.to_owned().into();

    let error = store::pool::connect(&url, &Login::Url, 1, "test")
        .map(|_| ())
        .unwrap_err();

    let chain = format!(
        "{error} {}",
        std::error::Error::source(&error).map_or(String::new(), ToString::to_string)
    );
    assert!(!chain.contains("me:hunter2"), "{chain}");
    assert!(error.to_string().contains("postgres://"), "{error}");
}
