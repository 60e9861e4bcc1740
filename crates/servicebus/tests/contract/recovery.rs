//! Links, connections and brokers that come and go beneath senders and receivers.

use std::collections::BTreeSet;
use std::time::Duration;

use servicebus::{Client, Condition, Outcome, SenderOptions};
use servicebus_emulator::{BrokerFaults, Config, QueueFaults, QueueSettings};

use crate::broker::{
    Broker, a_message, an_emulated_queue, drain, emulated, messages, only, recv, send, send_one, within,
};

/// A sender and a receiver that have both been used.
async fn in_use(broker: &Broker, client: &Client) -> (servicebus::Sender, servicebus::Receiver) {
    let sender = client.sender(&broker.queue, SenderOptions::default());
    let receiver = client.receiver(&broker.queue, 2);
    send(&sender, vec![a_message("before")]).await;
    assert_eq!(drain(&receiver, 1).await, ["before"]);
    (sender, receiver)
}

#[tokio::test]
async fn idle_links_detached_by_the_broker_come_back_without_counting_as_a_failure() {
    let Some(broker) = an_emulated_queue("").await else {
        return;
    };
    let client = broker.client();
    let (sender, receiver) = in_use(&broker, &client).await;

    broker.detach_links(
        Condition::DETACH_FORCED,
        "The link 'G1:…' is force detached. Code: publisher. Details: Idle timeout: 00:10:00.",
    );
    // It reaches the receiver over its new link, so by then the client knows of the detach.
    send_one(&broker.client(), &broker.queue, "between").await;
    assert_eq!(drain(&receiver, 1).await, ["between"]);
    send(&sender, vec![a_message("after")]).await;

    assert_eq!(drain(&receiver, 1).await, ["after"]);
    let health = client.health();
    assert_eq!(health.connections_opened, 1);
    assert!(health.last_error.is_none(), "{:?}", health.last_error);
}

#[tokio::test]
async fn dropped_connection_is_replaced_while_receiving() {
    let Some(broker) = an_emulated_queue("").await else {
        return;
    };
    let client = broker.client();
    let (sender, receiver) = in_use(&broker, &client).await;

    let waiting = tokio::spawn(async move { (recv(&receiver).await.message_id.clone(), receiver) });
    broker.emulator().drop_connections();
    within(
        client
            .watch_health()
            .wait_for(|health| health.connections_opened == 2),
    )
    .await
    .unwrap();
    send(&sender, vec![a_message("after")]).await;

    let (id, _receiver) = waiting.await.unwrap();
    assert_eq!(id, "after");
    let health = client.health();
    assert_eq!(health.connections_opened, 2);
    assert!(health.connected);
    assert_eq!(health.last_error.unwrap().error.reason(), "Connection");
}

#[tokio::test]
async fn connection_dropped_in_the_middle_of_a_delivery_loses_no_message() {
    let Some(broker) = an_emulated_queue("lock=1s").await else {
        return;
    };
    let client = broker.client();
    send(
        &client.sender(&broker.queue, SenderOptions::default()),
        messages(20),
    )
    .await;
    broker.set_faults(QueueFaults {
        drop_after_deliveries: 7,
        ..QueueFaults::default()
    });
    let receiver = client.receiver(&broker.queue, 5);

    let mut seen = BTreeSet::new();
    let consume = async {
        loop {
            let message = receiver.recv().await.unwrap();
            seen.insert(message.message_id.clone());
            // The lock may be lost, or seem so because the answer to the first attempt was; a message that is
            // still there comes again.
            if let Err(error) = receiver.complete(&message).await {
                assert!(error.is_lock_lost(), "{error:?}");
            }
        }
    };
    tokio::select! {
        () = consume => {}
        () = broker.until_counts(0, 0) => {}
    }

    assert_eq!(seen.len(), 20);
}

#[tokio::test]
async fn connection_closed_with_an_error_is_replaced() {
    let Some(broker) = an_emulated_queue("").await else {
        return;
    };
    let client = broker.client();
    let (sender, receiver) = in_use(&broker, &client).await;

    broker
        .emulator()
        .close_connections("amqp:connection:forced", "the broker moves house");
    within(
        client
            .watch_health()
            .wait_for(|health| health.connections_opened == 2),
    )
    .await
    .unwrap();
    send(&sender, vec![a_message("after")]).await;

    assert_eq!(drain(&receiver, 1).await, ["after"]);
    let noted = client.health().last_error.unwrap();
    assert_eq!(
        noted.error.condition().unwrap().as_str(),
        "amqp:connection:forced"
    );
}

#[tokio::test]
async fn close_of_an_idle_connection_is_no_failure() {
    let Some(broker) = an_emulated_queue("").await else {
        return;
    };
    let client = broker.client();
    send_one(&client, &broker.queue, "before").await;
    let mut health = client.watch_health();

    broker.emulator().close_connections(
        "amqp:connection:forced",
        "The connection was inactive for more than the allowed 60000 milliseconds and is closed by container",
    );
    within(health.wait_for(|health| health.connections_opened == 2))
        .await
        .unwrap();

    send_one(&client, &broker.queue, "after").await;
    assert!(client.health().last_error.is_none());
}

#[tokio::test]
async fn broker_that_was_away_at_the_start_is_found_when_it_comes() {
    let Some(broker) = an_emulated_queue("").await else {
        return;
    };
    broker.emulator().set_broker_faults(BrokerFaults {
        refuse_connections: true,
        ..BrokerFaults::default()
    });
    let client = broker.client();
    let receiver = client.receiver(&broker.queue, 1);
    within(
        client
            .watch_health()
            .wait_for(|health| health.failed_attempts >= 3),
    )
    .await
    .unwrap();

    broker.emulator().set_broker_faults(BrokerFaults::default());
    within(client.connected()).await.unwrap();

    send_one(&client, &broker.queue, "m").await;
    assert_eq!(drain(&receiver, 1).await, ["m"]);
    assert_eq!(client.health().failed_attempts, 0);
}

#[tokio::test]
async fn broker_that_takes_connections_and_says_nothing_is_given_up() {
    let Some(broker) = an_emulated_queue("").await else {
        return;
    };
    broker.emulator().set_broker_faults(BrokerFaults {
        silent_connections: true,
        ..BrokerFaults::default()
    });
    let mut settings = broker.settings.clone();
    settings.timeouts.connect = Duration::from_millis(300);
    let client = Client::new(settings);
    let receiver = client.receiver(&broker.queue, 1);
    within(
        client
            .watch_health()
            .wait_for(|health| health.failed_attempts >= 2),
    )
    .await
    .unwrap();

    broker.emulator().set_broker_faults(BrokerFaults::default());

    send_one(&client, &broker.queue, "m").await;
    assert_eq!(drain(&receiver, 1).await, ["m"]);
}

#[tokio::test]
async fn restarted_broker_keeps_its_messages_and_gets_its_clients_back() {
    if an_emulated_queue("").await.is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut config = Config::in_memory()
        .with_queue("queue".parse().unwrap(), QueueSettings::default())
        .with_directory(directory.path());
    let mut broker = emulated(config.clone()).await;
    config.listen = vec![broker.emulator().amqp_addr()];
    let client = broker.client();
    let (sender, receiver) = in_use(&broker, &client).await;
    drop(receiver);
    broker.until_counts(0, 0).await;
    send(&sender, vec![a_message("kept")]).await;

    broker.stop().await;
    let mut health = client.watch_health();
    within(health.wait_for(|health| !health.connected)).await.unwrap();
    let receiver = client.receiver(&broker.queue, 1);
    broker.restart(config).await;

    send(&sender, vec![a_message("after")]).await;
    assert_eq!(drain(&receiver, 2).await, ["kept", "after"]);
}

#[tokio::test]
async fn receiver_of_a_queue_that_does_not_exist_yet_finds_it_when_it_does() {
    let Some(broker) = an_emulated_queue("").await else {
        return;
    };
    let client = broker.client();
    let receiver = client.receiver("later", 1);
    let error = within(receiver.recv()).await.unwrap_err();
    assert!(error.is_not_found(), "{error:?}");

    broker
        .emulator()
        .define_queue(&"later".parse().unwrap(), QueueSettings::default());
    send_one(&client, "later", "m").await;

    let message = within(async {
        loop {
            // A failure that was noted before the queue came may still be told once.
            if let Ok(message) = receiver.recv().await {
                return message;
            }
        }
    })
    .await;
    assert_eq!(message.message_id, "m");
}

#[tokio::test]
async fn deleted_queue_is_told_to_sender_and_receiver() {
    let Some(broker) = an_emulated_queue("").await else {
        return;
    };
    let client = broker.client();
    let (sender, receiver) = in_use(&broker, &client).await;

    broker.emulator().delete_queue(&"queue".parse().unwrap());

    let received = within(receiver.recv()).await.unwrap_err();
    let outcome = only(within(sender.send(vec![a_message("m")])).await);
    let Outcome::Refused(sent) = outcome else {
        panic!("{outcome:?}")
    };
    for error in [received, sent] {
        assert!(error.is_not_found(), "{error:?}");
    }
}

#[tokio::test]
async fn connection_closes_when_the_last_handle_is_dropped() {
    let Some(broker) = an_emulated_queue("").await else {
        return;
    };
    let client = broker.client();
    let (sender, receiver) = in_use(&broker, &client).await;
    let mut health = client.watch_health();

    drop((client, sender));
    assert!(health.borrow_and_update().connected);
    drop(receiver);

    within(health.wait_for(|health| !health.connected)).await.unwrap();
}
