use domain::{ExportRequested, Parameters, Progress};
use rstest::rstest;
use sqlx::Row as _;
use store::reports::{self, Requested};
use store::testing;
use uuid::Uuid;

use crate::fixtures::{a_report, an_adoption, at, count, get, requested, with_key};

#[tokio::test]
async fn a_request_stores_the_report_and_its_message_together() {
    let database = testing::database().await;
    let new = a_report();

    let report = requested(&database, &new).await;

    assert_eq!(report, get(&database, new.id).await);
    assert_eq!(report.progress, Progress::accepted());
    assert_eq!(report.requested_by, Some(new.requested_by));
    assert_eq!(report.parameters, new.parameters);
    assert_eq!(report.traceparent, new.traceparent);
    assert_eq!(report.custom_resource, None);
    assert_eq!(report.created_at, at(0));
    let message = sqlx::query("SELECT * FROM outbox_messages")
        .fetch_one(&database.admin_pool)
        .await
        .unwrap();
    assert_eq!(message.get::<Uuid, _>("id"), new.outbox_id.as_uuid());
    assert_eq!(message.get::<Uuid, _>("aggregateid"), new.id.as_uuid());
    assert_eq!(message.get::<String, _>("aggregatetype"), "popularity-report");
    assert_eq!(message.get::<String, _>("type"), "ExportRequested");
    assert_eq!(message.get::<Option<String>, _>("traceparent"), new.traceparent);
    let payload = message.get::<serde_json::Value, _>("payload").to_string();
    let event = ExportRequested::from_slice(payload.as_bytes()).unwrap();
    assert_eq!(event, ExportRequested::new(new.id, new.parameters, at(0)));
}

#[tokio::test]
async fn fifty_requests_at_once_with_one_key_make_one_report() {
    let database = testing::database().await;
    let pool = testing::pool(&database.api_url, 25);
    let requested_by = Uuid::new_v4();

    let requests = (0..50).map(|_| {
        let pool = pool.clone();
        let mut new = a_report();
        new.requested_by = requested_by;
        new.idempotency = with_key("once", 1);
        tokio::spawn(async move { reports::request(&pool, &new).await.unwrap() })
    });
    let outcomes = futures::future::join_all(requests).await;

    let mut ids = Vec::new();
    let mut created = 0;
    for outcome in outcomes {
        match outcome.unwrap() {
            Requested::Created(report) => {
                created += 1;
                ids.push(report.id);
            }
            Requested::Existing(report) => ids.push(report.id),
        }
    }
    ids.dedup();
    assert_eq!((created, ids.len()), (1, 1));
    assert_eq!(
        count(&database.admin_pool, "SELECT count(*) FROM reports").await,
        1
    );
    assert_eq!(
        count(&database.admin_pool, "SELECT count(*) FROM outbox_messages").await,
        1
    );
}

#[tokio::test]
async fn a_retry_is_answered_with_the_report_as_it_is_now() {
    let database = testing::database().await;
    let mut new = a_report();
    new.idempotency = with_key("again", 1);
    let first = requested(&database, &new).await;
    reports::dispatch(&database.operator_pool, first.id, at(5))
        .await
        .unwrap();

    new.id = domain::ReportId::new(Uuid::now_v7());
    let Requested::Existing(again) = reports::request(&database.api_pool, &new).await.unwrap() else {
        panic!("a second report was made");
    };

    assert_eq!(*again, get(&database, first.id).await);
}

#[tokio::test]
async fn another_request_with_the_same_key_is_refused_and_stores_nothing() {
    let database = testing::database().await;
    let mut new = a_report();
    new.idempotency = with_key("mine", 1);
    requested(&database, &new).await;

    let mut other = a_report();
    other.requested_by = new.requested_by;
    other.idempotency = with_key("mine", 2);
    let outcome = reports::request(&database.api_pool, &other).await;

    assert!(matches!(outcome, Err(reports::Error::IdempotencyKeyReused)));
    assert_eq!(
        count(&database.admin_pool, "SELECT count(*) FROM reports").await,
        1
    );
    assert_eq!(
        count(&database.admin_pool, "SELECT count(*) FROM outbox_messages").await,
        1
    );
}

#[rstest]
#[case::the_same_key_of_another_user(Some(("k", 1)), Some(("k", 1)), false)]
#[case::another_key_of_the_same_user(Some(("k", 1)), Some(("l", 1)), true)]
#[case::no_key_at_all(None, None, true)]
#[tokio::test]
async fn requests_are_kept_apart_by_user_and_key(
    #[case] first: Option<(&str, u8)>,
    #[case] second: Option<(&str, u8)>,
    #[case] same_user: bool,
) {
    let database = testing::database().await;
    let mut one = a_report();
    let mut two = a_report();
    if same_user {
        two.requested_by = one.requested_by;
    }
    one.idempotency = first.and_then(|(key, sum)| with_key(key, sum));
    two.idempotency = second.and_then(|(key, sum)| with_key(key, sum));

    requested(&database, &one).await;
    requested(&database, &two).await;

    assert_eq!(
        count(&database.admin_pool, "SELECT count(*) FROM outbox_messages").await,
        2
    );
}

#[tokio::test]
async fn a_request_whose_message_cannot_be_stored_leaves_no_report() {
    let database = testing::database().await;
    let first = requested(&database, &a_report()).await;
    let taken = sqlx::query_scalar::<_, Uuid>("SELECT id FROM outbox_messages WHERE aggregateid = $1")
        .bind(first.id.as_uuid())
        .fetch_one(&database.admin_pool)
        .await
        .unwrap();

    let mut new = a_report();
    new.outbox_id = domain::OutboxId::new(taken);
    let outcome = reports::request(&database.api_pool, &new).await;

    assert!(matches!(outcome, Err(reports::Error::Request(_))));
    assert_eq!(reports::get(&database.api_pool, new.id).await.unwrap(), None);
}

#[tokio::test]
async fn ten_adoptions_at_once_of_one_custom_resource_make_one_report() {
    let database = testing::database().await;
    let first = an_adoption();

    let adoptions = (0..10).map(|_| {
        let pool = database.operator_pool.clone();
        let mut new = first.clone();
        new.outbox_id = an_adoption().outbox_id;
        tokio::spawn(async move { reports::adopt(&pool, &new).await.unwrap() })
    });
    let adopted = futures::future::join_all(adoptions).await;

    for report in adopted {
        let report = report.unwrap();
        assert_eq!(report.id, first.id);
        assert_eq!(report.requested_by, None);
        assert_eq!(report.parameters, Parameters::default());
        assert_eq!(report.custom_resource, Some(first.custom_resource.clone()));
    }
    assert_eq!(
        count(&database.admin_pool, "SELECT count(*) FROM reports").await,
        1
    );
    assert_eq!(
        count(&database.admin_pool, "SELECT count(*) FROM outbox_messages").await,
        1
    );
}

#[tokio::test]
async fn a_user_gets_no_more_unfinished_reports_than_the_limit_however_many_ask_at_once() {
    let database = testing::database().await;
    let pool = testing::pool(&database.api_url, 20);
    let requested_by = Uuid::new_v4();

    let requests = (0..20).map(|_| {
        let pool = pool.clone();
        let mut new = a_report();
        new.requested_by = requested_by;
        new.most_unfinished = 5;
        tokio::spawn(async move { reports::request(&pool, &new).await })
    });
    let outcomes = futures::future::join_all(requests).await;

    let (mut accepted, mut refused) = (0, 0);
    for outcome in outcomes {
        match outcome.unwrap() {
            Ok(_) => accepted += 1,
            Err(reports::Error::TooManyUnfinished { limit: 5, .. }) => refused += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!((accepted, refused), (5, 15));
    assert_eq!(
        count(&database.admin_pool, "SELECT count(*) FROM reports").await,
        5
    );
    assert_eq!(
        count(&database.admin_pool, "SELECT count(*) FROM outbox_messages").await,
        5
    );
}
