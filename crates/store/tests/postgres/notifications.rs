use std::time::Duration;

use store::{Notification, Notifications, outbox, reports, testing};

use crate::fixtures::{Stage, a_failure, a_report, at, at_stage, requested};

async fn next(notifications: &mut Notifications) -> Notification {
    tokio::time::timeout(Duration::from_secs(30), notifications.recv())
        .await
        .expect("a notification within half a minute")
        .unwrap()
}

#[tokio::test]
async fn a_stored_message_wakes_the_relay() {
    let database = testing::database().await;
    let mut notifications = outbox::listen(&database.operator_pool).await.unwrap();

    requested(&database, &a_report()).await;

    assert_eq!(
        next(&mut notifications).await,
        Notification::Payload(String::new())
    );
}

#[tokio::test]
async fn every_move_of_a_report_names_it_and_nothing_else_does() {
    let database = testing::database().await;
    let pool = &database.operator_pool;
    let mut notifications = reports::listen(pool).await.unwrap();
    let object = |id: domain::ReportId| domain::CustomResourceRef {
        namespace: "n".to_owned(),
        name: "r".to_owned(),
        uid: id.to_string(),
    };

    let id = requested(&database, &a_report()).await.id;
    reports::record_cr(pool, id, &object(id), at(1)).await.unwrap();
    let mut claim = outbox::claim(pool, 1, at(1)).await.unwrap();
    let message = claim.messages()[0].id;
    claim.mark_processed(&[message], at(1)).await.unwrap();
    claim.commit().await.unwrap();
    reports::dispatch(pool, id, at(2)).await.unwrap();
    reports::begin(&database.exporter_pool, id, at(3)).await.unwrap();
    reports::begin(&database.exporter_pool, id, at(4)).await.unwrap();
    reports::fail(pool, id, &a_failure(), at(5)).await.unwrap();
    reports::fail(pool, id, &a_failure(), at(6)).await.unwrap();
    let end = at_stage(&database, Stage::FailedBeforeItBegan).await;

    for heard in ["relayed", "dispatched", "begun", "begun again", "failed"] {
        assert_eq!(
            next(&mut notifications).await,
            Notification::Payload(id.to_string()),
            "{heard}"
        );
    }
    assert_eq!(
        next(&mut notifications).await,
        Notification::Payload(end.to_string())
    );
}

#[tokio::test]
async fn a_lost_connection_is_made_anew_and_the_gap_is_told() {
    let database = testing::database().await;
    let mut notifications = reports::listen(&database.operator_pool).await.unwrap();
    let killed = sqlx::query_scalar::<_, bool>(
        "SELECT bool_and(pg_terminate_backend(pid, 30000)) FROM pg_stat_activity
         WHERE datname = current_database() AND query LIKE 'LISTEN%'",
    )
    .fetch_one(&database.admin_pool)
    .await
    .unwrap();
    assert!(killed);

    let mut heard = notifications.recv().await;
    if heard.is_err() {
        heard = notifications.recv().await;
    }
    assert_eq!(heard.unwrap(), Notification::Missed);

    let id = at_stage(&database, Stage::Dispatched).await;
    assert_eq!(
        next(&mut notifications).await,
        Notification::Payload(id.to_string())
    );
}
