//! Credit, drains, locks and refusals on links.

use std::time::Duration;

use fe2o3_amqp::{
    Sender,
    link::SenderAttachError,
    types::messaging::{Accepted, Body, Outcome},
};
use serde_amqp::Value;
use servicebus_emulator::QueueSettings;

use crate::client::{Client, condition, emulator, emulator_with, orders, receive, send, until, within};

#[tokio::test]
async fn what_was_sent_is_received_and_gone_when_settled() {
    let emulator = emulator().await;
    let mut client = Client::connect(emulator.amqp_addr()).await;
    let mut sender = client.sender().await;
    let mut receiver = client.receiver().await;

    let outcome = send(&mut sender, "a").await;
    let (body, delivery) = receive(&mut receiver).await;
    receiver.accept(&delivery).await.unwrap();

    assert_eq!((outcome, body.as_str()), (Outcome::Accepted(Accepted {}), "a"));
    assert_eq!(delivery.delivery_tag().len(), 16, "the tag is the lock token");
    until(&emulator, "completing", |view| {
        view.counters.completed == 1 && view.counts.main.locked == 0
    })
    .await;
}

#[tokio::test]
async fn no_message_is_locked_for_a_receiver_that_did_not_ask_for_it() {
    let emulator = emulator().await;
    let mut client = Client::connect(emulator.amqp_addr()).await;
    let mut sender = client.sender().await;
    for id in ["a", "b", "c", "d"] {
        send(&mut sender, id).await;
    }

    let mut receiver = client.receiver().await;
    receiver.set_credit(2).await.unwrap();
    for _ in 0..2 {
        within("receiving", receiver.recv::<Body<Value>>()).await.unwrap();
    }

    let counts = orders(&emulator).counts.main;
    assert_eq!((counts.active, counts.locked), (2, 2));
}

#[tokio::test]
async fn a_waiting_receiver_gets_a_message_as_soon_as_it_is_sent() {
    let emulator = emulator().await;
    let mut receiving = Client::connect(emulator.amqp_addr()).await;
    let mut sending = Client::connect(emulator.amqp_addr()).await;
    let mut receiver = receiving.receiver().await;
    receiver.set_credit(1).await.unwrap();
    let mut sender = sending.sender().await;

    send(&mut sender, "a").await;

    within("receiving", receiver.recv::<Body<Value>>()).await.unwrap();
}

#[tokio::test]
async fn a_drained_link_gets_what_is_there_and_then_nothing_until_it_asks_again() {
    let emulator = emulator().await;
    let mut client = Client::connect(emulator.amqp_addr()).await;
    let mut sender = client.sender().await;
    send(&mut sender, "a").await;
    let mut receiver = client.receiver().await;

    receiver.set_credit(5).await.unwrap();
    within("receiving", receiver.recv::<Body<Value>>()).await.unwrap();
    receiver.drain().await.unwrap();
    // The answer to the drain is before anything that is asked for later on the same session.
    within("a round trip", client.receiver_of("orders/$DeadLetterQueue")).await;
    send(&mut sender, "b").await;
    assert_eq!(
        orders(&emulator).counts.main.active,
        1,
        "the drained credit is gone"
    );

    let (body, _) = receive(&mut receiver).await;
    assert_eq!(body, "b");
}

#[tokio::test]
async fn a_closed_link_leaves_its_messages_locked_until_their_time() {
    let settings = QueueSettings {
        lock_duration: Duration::from_millis(300),
        ..QueueSettings::default()
    };
    let emulator = emulator_with(settings).await;
    let mut client = Client::connect(emulator.amqp_addr()).await;
    let mut sender = client.sender().await;
    send(&mut sender, "a").await;
    let mut receiver = client.receiver().await;
    receive(&mut receiver).await;

    receiver.close().await.unwrap();

    assert_eq!(orders(&emulator).counts.main.locked, 1);
    until(&emulator, "the end of the lock", |view| {
        view.counts.main.active == 1
    })
    .await;
    assert_eq!(orders(&emulator).counters.locks_expired, 1);
}

#[tokio::test]
async fn a_queue_that_is_not_there_cannot_be_attached() {
    let emulator = emulator().await;
    let mut client = Client::connect(emulator.amqp_addr()).await;

    let refused = within("attaching", Sender::attach(&mut client.session, "s", "nowhere"))
        .await
        .unwrap_err();

    match refused {
        SenderAttachError::RemoteClosedWithError(error) => {
            assert_eq!(condition(&error.condition), "amqp:not-found")
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_queue_made_while_it_runs_can_be_used_and_its_links_end_when_it_is_deleted() {
    let emulator = emulator().await;
    let name = "made-later".parse().unwrap();
    assert!(emulator.define_queue(&name, QueueSettings::default()));
    let mut client = Client::connect(emulator.amqp_addr()).await;
    let attaching = Sender::attach(&mut client.session, "s", "Made-Later");
    let mut sender = within("attaching", attaching).await.unwrap();
    send(&mut sender, "a").await;

    assert!(emulator.delete_queue(&name));

    let ended = within("the detach", sender.on_detach()).await;
    assert!(format!("{ended:?}").contains("NotFound"), "{ended:?}");
    assert!(emulator.queue(&name).is_err());
}
