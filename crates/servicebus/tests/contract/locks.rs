//! Locks: kept by renewal, lost by time, and bounded in number.

use std::time::Duration;

use servicebus::{Condition, SenderOptions};
use servicebus_emulator::{QueueFaults, Refusals};

use crate::broker::{a_queue, an_emulated_queue, drain, messages, recv, send, send_one, within};

#[tokio::test]
async fn renewed_lock_runs_out_later() {
    let broker = a_queue().await;
    let client = broker.client();
    send_one(&client, &broker.queue, "m").await;
    let receiver = client.receiver(&broker.queue, 1);
    let message = recv(&receiver).await;
    tokio::time::sleep(Duration::from_millis(50)).await;

    let until = within(receiver.renew_lock(&message)).await.unwrap();

    assert!(
        until > message.locked_until,
        "{until} is not after {}",
        message.locked_until
    );
    within(receiver.complete(&message)).await.unwrap();
}

#[tokio::test]
async fn renewal_keeps_a_message_for_longer_than_its_lock() {
    let Some(broker) = an_emulated_queue("lock=1s").await else {
        return;
    };
    let client = broker.client();
    send_one(&client, &broker.queue, "m").await;
    let receiver = client.receiver(&broker.queue, 2);
    let message = recv(&receiver).await;

    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        within(receiver.renew_lock(&message)).await.unwrap();
    }

    within(receiver.complete(&message)).await.unwrap();
    broker.until_counts(0, 0).await;
}

#[tokio::test]
async fn lost_lock_is_told_and_the_message_comes_again() {
    let Some(broker) = an_emulated_queue("").await else {
        return;
    };
    let client = broker.client();
    send_one(&client, &broker.queue, "m").await;
    let receiver = client.receiver(&broker.queue, 2);
    let message = recv(&receiver).await;

    assert_eq!(broker.expire_locks(), 1);

    for result in [
        within(receiver.complete(&message)).await,
        within(receiver.abandon(&message)).await,
        within(receiver.dead_letter(&message, "a", "b")).await,
        within(receiver.renew_lock(&message)).await.map(drop),
    ] {
        let error = result.unwrap_err();
        assert!(error.is_lock_lost(), "{error:?}");
        assert!(!error.is_retriable());
    }
    let again = recv(&receiver).await;
    assert_eq!((again.message_id.as_str(), again.delivery_count), ("m", 1));
    assert_ne!(again.lock_token, message.lock_token);
    within(receiver.complete(&again)).await.unwrap();
}

#[tokio::test]
async fn message_completed_twice_has_lost_its_lock() {
    let broker = a_queue().await;
    let client = broker.client();
    send_one(&client, &broker.queue, "m").await;
    let receiver = client.receiver(&broker.queue, 1);
    let message = recv(&receiver).await;

    within(receiver.complete(&message)).await.unwrap();

    assert!(
        within(receiver.complete(&message))
            .await
            .unwrap_err()
            .is_lock_lost()
    );
}

#[tokio::test]
async fn message_dropped_unsettled_comes_again_when_its_lock_runs_out() {
    let Some(broker) = an_emulated_queue("lock=1s").await else {
        return;
    };
    let client = broker.client();
    send_one(&client, &broker.queue, "m").await;
    let receiver = client.receiver(&broker.queue, 1);

    drop(recv(&receiver).await);

    assert_eq!(recv(&receiver).await.delivery_count, 1);
}

#[tokio::test]
async fn no_more_messages_are_held_than_the_credit_allows() {
    let Some(broker) = an_emulated_queue("").await else {
        return;
    };
    let client = broker.client();
    send(
        &client.sender(&broker.queue, SenderOptions::default()),
        messages(10),
    )
    .await;
    let receiver = client.receiver(&broker.queue, 3);

    broker.until_counts(7, 3).await;
    let first = recv(&receiver).await;
    let second = recv(&receiver).await;
    // Handing messages out frees no place; completing and dropping them does.
    broker.until_counts(7, 3).await;
    within(receiver.complete(&first)).await.unwrap();
    within(receiver.complete(&second)).await.unwrap();
    broker.until_counts(7, 1).await;
    drop((first, second));

    broker.until_counts(5, 3).await;
    assert_eq!(drain(&receiver, 8).await.len(), 8);
}

#[tokio::test]
async fn message_received_over_a_lost_connection_can_still_be_completed() {
    let Some(broker) = an_emulated_queue("").await else {
        return;
    };
    let client = broker.client();
    send_one(&client, &broker.queue, "m").await;
    let receiver = client.receiver(&broker.queue, 1);
    let message = recv(&receiver).await;

    broker.emulator().drop_connections();
    within(receiver.complete(&message)).await.unwrap();

    broker.until_counts(0, 0).await;
}

#[tokio::test]
async fn settlement_refused_for_a_passing_reason_is_asked_for_again() {
    let Some(broker) = an_emulated_queue("").await else {
        return;
    };
    let client = broker.client();
    send_one(&client, &broker.queue, "m").await;
    let receiver = client.receiver(&broker.queue, 1);
    let message = recv(&receiver).await;
    broker.set_faults(QueueFaults {
        refuse_settlements: Some(Refusals {
            next: 2,
            condition: Condition::SERVER_BUSY.to_owned(),
            description: "on purpose".to_owned(),
        }),
        ..QueueFaults::default()
    });

    within(receiver.complete(&message)).await.unwrap();

    broker.until_counts(0, 0).await;
}

#[tokio::test]
async fn settlement_that_the_connection_did_not_survive_is_asked_for_again() {
    let Some(broker) = an_emulated_queue("").await else {
        return;
    };
    let client = broker.client();
    send_one(&client, &broker.queue, "m").await;
    let receiver = client.receiver(&broker.queue, 1);
    let message = recv(&receiver).await;
    broker.set_faults(QueueFaults {
        drop_before_settling: 1,
        ..QueueFaults::default()
    });

    within(receiver.complete(&message)).await.unwrap();

    broker.until_counts(0, 0).await;
    assert_eq!(client.health().connections_opened, 2);
}

#[tokio::test]
async fn completion_whose_answer_was_lost_shows_as_a_lost_lock_and_the_message_is_gone() {
    let Some(broker) = an_emulated_queue("").await else {
        return;
    };
    let client = broker.client();
    send_one(&client, &broker.queue, "m").await;
    let receiver = client.receiver(&broker.queue, 1);
    let message = recv(&receiver).await;
    broker.set_faults(QueueFaults {
        drop_before_answer: 1,
        ..QueueFaults::default()
    });

    let error = within(receiver.complete(&message)).await.unwrap_err();

    assert!(error.is_lock_lost(), "{error:?}");
    broker.until_counts(0, 0).await;
}
