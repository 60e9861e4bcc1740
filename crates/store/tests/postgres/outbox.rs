use std::collections::HashSet;

use domain::OutboxId;
use store::outbox;
use store::testing::{self, TestDatabase};

use crate::fixtures::{Stage, a_report, at, at_stage, count, get, requested};

async fn messages(database: &TestDatabase, number: usize) -> Vec<OutboxId> {
    let mut ids = Vec::new();
    for _ in 0..number {
        let new = a_report();
        requested(database, &new).await;
        ids.push(new.outbox_id);
    }
    ids
}

fn ids(claim: &outbox::Claim) -> Vec<OutboxId> {
    claim.messages().iter().map(|message| message.id).collect()
}

#[tokio::test]
async fn a_claim_holds_due_messages_oldest_first_with_all_that_is_sent() {
    let database = testing::database().await;
    let mut late = a_report();
    late.now = at(100);
    let new = a_report();
    requested(&database, &late).await;
    requested(&database, &new).await;

    let before = outbox::claim(&database.operator_pool, 10, at(99)).await.unwrap();
    assert_eq!(ids(&before), [new.outbox_id]);
    before.release().await.unwrap();
    let claim = outbox::claim(&database.operator_pool, 10, at(100)).await.unwrap();
    assert_eq!(ids(&claim), [new.outbox_id, late.outbox_id]);

    let message = &claim.messages()[0];
    assert_eq!(message.report_id, new.id);
    assert_eq!(message.event_type, "ExportRequested");
    assert_eq!(message.traceparent, new.traceparent);
    assert_eq!((message.attempts, message.created_at), (0, at(0)));
    let event = domain::ExportRequested::from_slice(message.payload.as_bytes()).unwrap();
    assert_eq!(event.report_id, new.id);
}

#[tokio::test]
async fn two_claims_at_once_share_no_message() {
    let database = testing::database().await;
    let all = messages(&database, 5).await;

    let first = outbox::claim(&database.operator_pool, 3, at(1)).await.unwrap();
    let second = outbox::claim(&database.operator_pool, 3, at(1)).await.unwrap();
    let third = outbox::claim(&database.operator_pool, 3, at(1)).await.unwrap();

    assert_eq!(ids(&first), all[..3]);
    assert_eq!(ids(&second), all[3..]);
    assert!(third.messages().is_empty());
}

#[tokio::test]
async fn four_relays_at_once_send_every_message_once() {
    let database = testing::database().await;
    let pool = testing::pool(&database.operator_url, 8);
    let all: HashSet<_> = messages(&database, 60).await.into_iter().collect();

    let relays = (0..4).map(|_| {
        let pool = pool.clone();
        tokio::spawn(async move {
            let mut sent = Vec::new();
            while outbox::backlog(&pool).await.unwrap().count > 0 {
                let mut claim = outbox::claim(&pool, 7, at(1)).await.unwrap();
                let claimed = ids(&claim);
                claim.mark_processed(&claimed, at(2)).await.unwrap();
                claim.commit().await.unwrap();
                sent.extend(claimed);
            }
            sent
        })
    });
    let sent: Vec<_> = futures::future::join_all(relays)
        .await
        .into_iter()
        .flat_map(Result::unwrap)
        .collect();

    assert_eq!(sent.len(), 60);
    assert_eq!(sent.into_iter().collect::<HashSet<_>>(), all);
}

#[tokio::test]
async fn a_relay_that_dies_gives_its_messages_back() {
    let database = testing::database().await;
    let all = messages(&database, 2).await;
    let mut dying = outbox::claim(&database.operator_pool, 10, at(1)).await.unwrap();
    dying.mark_processed(&all, at(1)).await.unwrap();

    let killed = sqlx::query_scalar::<_, bool>(
        "SELECT bool_and(pg_terminate_backend(pid, 30000)) FROM pg_stat_activity
         WHERE datname = current_database() AND state = 'idle in transaction'",
    )
    .fetch_one(&database.admin_pool)
    .await
    .unwrap();
    assert!(killed);

    assert!(dying.commit().await.is_err());
    let next = outbox::claim(&database.operator_pool, 10, at(1)).await.unwrap();
    assert_eq!(ids(&next), all);
}

#[tokio::test]
async fn a_dropped_claim_gives_its_messages_back() {
    let database = testing::database().await;
    let all = messages(&database, 2).await;
    let mut claim = outbox::claim(&database.operator_pool, 10, at(1)).await.unwrap();
    claim.mark_processed(&all[..1], at(1)).await.unwrap();

    drop(claim);

    // dropping cannot wait for PostgreSQL, so the rollback comes a moment later
    let mut again = Vec::new();
    while again.is_empty() {
        again = ids(&outbox::claim(&database.operator_pool, 10, at(1)).await.unwrap());
    }
    assert_eq!(again, all);
}

#[tokio::test]
async fn a_processed_message_is_not_claimed_again_and_its_report_is_relayed() {
    let database = testing::database().await;
    let new = a_report();
    requested(&database, &new).await;

    let mut claim = outbox::claim(&database.operator_pool, 10, at(1)).await.unwrap();
    claim.mark_processed(&[new.outbox_id], at(2)).await.unwrap();
    claim.commit().await.unwrap();

    let next = outbox::claim(&database.operator_pool, 10, at(1000))
        .await
        .unwrap();
    assert!(next.messages().is_empty());
    assert_eq!(get(&database, new.id).await.relayed_at, Some(at(2)));
}

#[tokio::test]
async fn a_mark_that_comes_after_the_dispatch_changes_nothing_in_the_report() {
    let database = testing::database().await;
    let id = at_stage(&database, Stage::Completed).await;
    let before = get(&database, id).await;

    let mut claim = outbox::claim(&database.operator_pool, 10, at(1)).await.unwrap();
    let claimed = ids(&claim);
    claim.mark_processed(&claimed, at(700)).await.unwrap();
    claim.commit().await.unwrap();

    assert_eq!(get(&database, id).await, before);
}

#[tokio::test]
async fn a_failed_message_waits_until_it_is_due_again() {
    let database = testing::database().await;
    let all = messages(&database, 2).await;

    let mut claim = outbox::claim(&database.operator_pool, 10, at(1)).await.unwrap();
    claim
        .mark_failed(&all[..1], "amqp:resource-limit-exceeded", at(60))
        .await
        .unwrap();
    claim.commit().await.unwrap();

    let early = outbox::claim(&database.operator_pool, 10, at(59)).await.unwrap();
    assert_eq!(ids(&early), all[1..]);
    early.release().await.unwrap();
    let due = outbox::claim(&database.operator_pool, 10, at(60)).await.unwrap();
    assert_eq!(ids(&due), [all[1], all[0]]);
    assert_eq!(due.messages()[1].attempts, 1);
    let error =
        sqlx::query_scalar::<_, Option<String>>("SELECT last_error FROM outbox_messages WHERE id = $1")
            .bind(all[0].as_uuid())
            .fetch_one(&database.admin_pool)
            .await
            .unwrap();
    assert_eq!(error.as_deref(), Some("amqp:resource-limit-exceeded"));
}

#[tokio::test]
async fn pruning_removes_old_processed_messages_in_batches_and_nothing_else() {
    let database = testing::database().await;
    let all = messages(&database, 6).await;
    for (number, id) in all[..5].iter().enumerate() {
        let mut claim = outbox::claim(&database.operator_pool, 10, at(1)).await.unwrap();
        claim
            .mark_processed(&[*id], at(10 * (1 + i64::try_from(number).unwrap())))
            .await
            .unwrap();
        claim.commit().await.unwrap();
    }

    let first = outbox::prune(&database.operator_pool, at(40), 2).await.unwrap();
    let second = outbox::prune(&database.operator_pool, at(40), 2).await.unwrap();
    let third = outbox::prune(&database.operator_pool, at(40), 2).await.unwrap();

    assert_eq!((first, second, third), (2, 1, 0));
    let left = sqlx::query_scalar::<_, uuid::Uuid>("SELECT id FROM outbox_messages ORDER BY id")
        .fetch_all(&database.admin_pool)
        .await
        .unwrap();
    let expected: Vec<_> = all[3..].iter().map(OutboxId::as_uuid).collect();
    assert_eq!(left, expected, "processed at or after the moment, or not at all");
    assert_eq!(
        count(&database.admin_pool, "SELECT count(*) FROM reports").await,
        6
    );
}

#[tokio::test]
async fn the_backlog_counts_what_waits_and_tells_its_age() {
    let database = testing::database().await;
    let empty = outbox::backlog(&database.operator_pool).await.unwrap();
    let all = messages(&database, 3).await;
    let mut late = a_report();
    late.now = at(50);
    requested(&database, &late).await;
    let mut claim = outbox::claim(&database.operator_pool, 10, at(1)).await.unwrap();
    claim.mark_processed(&all[..2], at(1)).await.unwrap();
    claim.mark_failed(&all[2..], "away", at(900)).await.unwrap();
    claim.commit().await.unwrap();

    let two = outbox::backlog(&database.operator_pool).await.unwrap();

    assert_eq!((empty.count, empty.oldest), (0, None));
    assert_eq!((two.count, two.oldest), (2, Some(at(0))));
}

#[tokio::test]
async fn claiming_and_counting_read_the_index_of_unprocessed_messages() {
    let database = testing::database().await;
    sqlx::query(
        "INSERT INTO outbox_messages (id, aggregatetype, aggregateid, type, payload, created_at, available_at, processed_at)
         SELECT gen_random_uuid(), 'popularity-report', gen_random_uuid(), 'ExportRequested', '{}', now(), now(),
                CASE WHEN n % 500 <> 0 THEN now() END
         FROM generate_series(1, 20000) AS n",
    )
    .execute(&database.admin_pool)
    .await
    .unwrap();
    sqlx::query("VACUUM ANALYZE outbox_messages")
        .execute(&database.admin_pool)
        .await
        .unwrap();

    for statement in [
        "EXPLAIN SELECT id FROM outbox_messages WHERE processed_at IS NULL AND available_at <= now()
         ORDER BY available_at, id LIMIT 100 FOR UPDATE SKIP LOCKED",
        "EXPLAIN SELECT count(*), min(created_at) FROM outbox_messages WHERE processed_at IS NULL",
    ] {
        let plan = sqlx::query_scalar::<_, String>(statement)
            .fetch_all(&database.admin_pool)
            .await
            .unwrap()
            .join("\n");
        assert!(plan.contains("outbox_messages_unprocessed"), "{plan}");
        assert!(!plan.contains("Seq Scan"), "{plan}");
    }
}
