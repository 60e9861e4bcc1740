//! Each switch does what it says, as often as it says, to its own queue only.

use std::time::{Duration, Instant};

use fe2o3_amqp::types::messaging::{Accepted, Body, Outcome};
use serde_amqp::Value;
use servicebus_emulator::{BrokerFaults, Config, Emulator, QueueFaults, QueueSettings, Refusals, Running};
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::client::{
    Client, condition, emulator, message, orders, queue_name, receive, rejected, send, until, within,
};

fn set(emulator: &Running, faults: QueueFaults) {
    emulator.set_faults(&queue_name("orders"), faults).unwrap();
}

fn refusals(next: u32, condition: &str) -> Option<Refusals> {
    Some(Refusals {
        next,
        condition: condition.to_owned(),
        description: "by a test".to_owned(),
    })
}

#[tokio::test]
async fn refused_sends_are_not_stored_and_the_next_one_is() {
    let emulator = emulator().await;
    set(
        &emulator,
        QueueFaults {
            refuse_sends: refusals(2, "com.microsoft:server-busy"),
            ..QueueFaults::default()
        },
    );
    let mut client = Client::connect(emulator.amqp_addr()).await;
    let mut sender = client.sender().await;

    assert_eq!(
        rejected(send(&mut sender, "a").await),
        "com.microsoft:server-busy"
    );
    assert_eq!(
        rejected(send(&mut sender, "a").await),
        "com.microsoft:server-busy"
    );
    assert_eq!(send(&mut sender, "a").await, Outcome::Accepted(Accepted {}));

    let counters = orders(&emulator).counters;
    assert_eq!((counters.sent, counters.refused, counters.transfers), (1, 2, 3));
}

#[tokio::test]
async fn a_lost_outcome_leaves_the_message_stored_and_the_connection_up() {
    let emulator = emulator().await;
    set(
        &emulator,
        QueueFaults {
            lose_outcomes: 1,
            ..QueueFaults::default()
        },
    );
    let mut client = Client::connect(emulator.amqp_addr()).await;
    let mut sender = client.sender().await;

    let lost = sender.send_batchable(message("a")).await.unwrap();
    let answered = send(&mut sender, "b").await;

    assert_eq!(answered, Outcome::Accepted(Accepted {}));
    assert_eq!(orders(&emulator).counters.sent, 2);
    let none = tokio::time::timeout(Duration::from_millis(200), lost).await;
    assert!(none.is_err(), "an outcome came: {none:?}");
}

#[tokio::test]
async fn the_connection_ends_after_the_nth_send_which_is_stored() {
    let emulator = emulator().await;
    set(
        &emulator,
        QueueFaults {
            drop_after_sends: 2,
            ..QueueFaults::default()
        },
    );
    let mut client = Client::connect(emulator.amqp_addr()).await;
    let mut sender = client.sender().await;

    assert_eq!(send(&mut sender, "a").await, Outcome::Accepted(Accepted {}));
    let _unanswered = sender.send_batchable(message("b")).await.unwrap();

    within("the end of the connection", client.connection.on_close())
        .await
        .unwrap_err();
    assert_eq!(orders(&emulator).counters.sent, 2);
}

#[tokio::test]
async fn the_connection_ends_before_the_nth_send_is_stored() {
    let emulator = emulator().await;
    set(
        &emulator,
        QueueFaults {
            drop_before_storing: 1,
            ..QueueFaults::default()
        },
    );
    let mut client = Client::connect(emulator.amqp_addr()).await;
    let mut sender = client.sender().await;

    let _unanswered = sender.send_batchable(message("a")).await.unwrap();

    within("the end of the connection", client.connection.on_close())
        .await
        .unwrap_err();
    assert_eq!(orders(&emulator).counters.sent, 0);
}

#[tokio::test]
async fn a_silenced_connection_stays_open_and_says_nothing_more() {
    let emulator = emulator().await;
    set(
        &emulator,
        QueueFaults {
            silent_after_sends: 1,
            ..QueueFaults::default()
        },
    );
    let mut client = Client::connect(emulator.amqp_addr()).await;
    let mut sender = client.sender().await;

    let outcome = sender.send_batchable(message("a")).await.unwrap();

    until(&emulator, "storing", |view| view.counters.sent == 1).await;
    let silence = tokio::time::timeout(Duration::from_millis(300), async {
        tokio::select! {
            outcome = outcome => format!("{outcome:?}"),
            closed = client.connection.on_close() => format!("{closed:?}"),
        }
    });
    assert_eq!(silence.await.ok(), None);
    let mut another = Client::connect(emulator.amqp_addr()).await;
    assert_eq!(
        send(&mut another.sender().await, "b").await,
        Outcome::Accepted(Accepted {})
    );
}

#[tokio::test]
async fn the_connection_ends_after_the_nth_delivery() {
    let emulator = emulator().await;
    let mut client = Client::connect(emulator.amqp_addr()).await;
    let mut sender = client.sender().await;
    for id in ["a", "b", "c"] {
        send(&mut sender, id).await;
    }
    set(
        &emulator,
        QueueFaults {
            drop_after_deliveries: 2,
            ..QueueFaults::default()
        },
    );
    let mut receiver = client.receiver().await;

    receiver.set_credit(3).await.unwrap();

    within("the end of the connection", client.connection.on_close())
        .await
        .unwrap_err();
    let counts = orders(&emulator).counts.main;
    assert_eq!((counts.locked, counts.active), (2, 1));
}

#[tokio::test]
async fn a_settlement_takes_effect_though_its_connection_is_dropped_before_the_answer() {
    let emulator = emulator().await;
    let (mut client, delivery, receiver) = locked(&emulator).await;
    set(
        &emulator,
        QueueFaults {
            drop_before_answer: 1,
            ..QueueFaults::default()
        },
    );

    receiver.accept(&delivery).await.unwrap();

    within("the end of the connection", client.connection.on_close())
        .await
        .unwrap_err();
    assert_eq!(orders(&emulator).counters.completed, 1);
}

#[tokio::test]
async fn a_settlement_takes_no_effect_when_its_connection_is_dropped_first() {
    let emulator = emulator().await;
    let (mut client, delivery, receiver) = locked(&emulator).await;
    set(
        &emulator,
        QueueFaults {
            drop_before_settling: 1,
            ..QueueFaults::default()
        },
    );

    receiver.accept(&delivery).await.unwrap();

    within("the end of the connection", client.connection.on_close())
        .await
        .unwrap_err();
    let view = orders(&emulator);
    assert_eq!((view.counters.completed, view.counts.main.locked), (0, 1));
}

#[tokio::test]
async fn a_refused_settlement_leaves_the_message_locked() {
    let emulator = emulator().await;
    let (_client, delivery, receiver) = locked(&emulator).await;
    set(
        &emulator,
        QueueFaults {
            refuse_settlements: refusals(1, "com.microsoft:timeout"),
            ..QueueFaults::default()
        },
    );

    receiver.accept(&delivery).await.unwrap();

    until(&emulator, "using the switch up", |view| {
        view.faults.refuse_settlements.as_ref().unwrap().next == 0
    })
    .await;
    let view = orders(&emulator);
    assert_eq!((view.counters.completed, view.counts.main.locked), (0, 1));
}

#[tokio::test]
async fn a_delay_holds_outcomes_back_without_changing_their_number() {
    let emulator = emulator().await;
    set(
        &emulator,
        QueueFaults {
            delay_ms: 300,
            ..QueueFaults::default()
        },
    );
    let mut client = Client::connect(emulator.amqp_addr()).await;
    let mut sender = client.sender().await;
    let begun = Instant::now();

    let first = sender.send_batchable(message("a")).await.unwrap();
    let second = sender.send_batchable(message("b")).await.unwrap();
    let outcomes = within("both outcomes", async {
        (first.await.unwrap(), second.await.unwrap())
    })
    .await;

    assert_eq!(
        outcomes,
        (Outcome::Accepted(Accepted {}), Outcome::Accepted(Accepted {}))
    );
    assert!(begun.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn a_silenced_connection_is_not_closed_for_being_idle_and_can_still_be_dropped() {
    let config = Config {
        idle_time_out: Duration::from_millis(50),
        ..Config::in_memory()
    };
    let emulator = Emulator::start(config.with_queue(queue_name("orders"), QueueSettings::default()))
        .await
        .unwrap();
    set(
        &emulator,
        QueueFaults {
            silent_after_sends: 1,
            ..QueueFaults::default()
        },
    );
    let mut client = Client::connect(emulator.amqp_addr()).await;
    let mut sender = client.sender().await;
    let _unanswered = sender.send_batchable(message("a")).await.unwrap();
    until(&emulator, "storing", |view| view.counters.sent == 1).await;

    // Three times as long as a client may be silent.
    tokio::time::sleep(Duration::from_millis(300)).await;

    assert_eq!(emulator.drop_connections(), 1, "it is still open");
    within("the end of the connection", client.connection.on_close())
        .await
        .unwrap_err();
}

#[tokio::test]
async fn a_refused_attach_says_why_and_the_next_one_succeeds() {
    let emulator = emulator().await;
    set(
        &emulator,
        QueueFaults {
            refuse_attaches: refusals(1, "amqp:unauthorized-access"),
            ..QueueFaults::default()
        },
    );
    let mut client = Client::connect(emulator.amqp_addr()).await;

    let attaching = fe2o3_amqp::Sender::attach(&mut client.session, "first", "orders");
    let refused = within("attaching", attaching).await.unwrap_err();

    assert!(
        format!("{refused:?}").contains("UnauthorizedAccess"),
        "{refused:?}"
    );
    // On a connection of its own, because this client's session sometimes takes nothing more after a refused attach.
    Client::connect(emulator.amqp_addr()).await.sender().await;
}

#[tokio::test]
async fn a_switch_of_one_queue_leaves_the_others_alone() {
    let emulator = emulator().await;
    emulator.define_queue(&queue_name("other"), QueueSettings::default());
    emulator
        .set_faults(
            &queue_name("other"),
            QueueFaults {
                lose_outcomes: 1_000,
                ..QueueFaults::default()
            },
        )
        .unwrap();
    let mut client = Client::connect(emulator.amqp_addr()).await;

    assert_eq!(
        send(&mut client.sender().await, "a").await,
        Outcome::Accepted(Accepted {})
    );
}

#[tokio::test]
async fn expiring_locks_counts_as_a_failed_delivery() {
    let emulator = emulator().await;
    let (_client, _delivery, mut receiver) = locked(&emulator).await;

    assert_eq!(emulator.expire_locks(&queue_name("orders")).unwrap(), 1);

    receiver.set_credit(1).await.unwrap();
    let again = within("receiving", receiver.recv::<Body<Value>>()).await.unwrap();
    assert_eq!(again.message().header.as_ref().unwrap().delivery_count, 1);
}

#[tokio::test]
async fn detached_links_get_the_condition_and_the_connection_stays() {
    let emulator = emulator().await;
    let mut client = Client::connect(emulator.amqp_addr()).await;
    let mut sender = client.sender().await;

    emulator.detach_links(&queue_name("orders"), "amqp:link:detach-forced", "idle");

    let detached = within("the detach", sender.on_detach()).await;
    assert!(format!("{detached:?}").contains("DetachForced"), "{detached:?}");
    let attaching = fe2o3_amqp::Sender::attach(&mut client.session, "second", "orders");
    let mut second = within("attaching again", attaching).await.unwrap();
    assert_eq!(send(&mut second, "a").await, Outcome::Accepted(Accepted {}));
}

#[tokio::test]
async fn closed_connections_get_the_condition() {
    let emulator = emulator().await;
    let mut client = Client::connect(emulator.amqp_addr()).await;

    assert_eq!(
        emulator.close_connections("amqp:connection:forced", "by a test"),
        1
    );

    match within("the close", client.connection.on_close())
        .await
        .unwrap_err()
    {
        fe2o3_amqp::connection::Error::RemoteClosedWithError(error) => {
            assert_eq!(condition(&error.condition), "amqp:connection:forced");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn dropped_connections_end_without_a_word() {
    let emulator = emulator().await;
    let mut client = Client::connect(emulator.amqp_addr()).await;

    assert_eq!(emulator.drop_connections(), 1);

    let closed = within("the end of the connection", client.connection.on_close())
        .await
        .unwrap_err();
    assert!(!format!("{closed:?}").contains("RemoteClosed"), "{closed:?}");
}

#[tokio::test]
async fn refused_connections_are_closed_before_a_byte_and_taken_again_when_the_switch_is_off() {
    let emulator = emulator().await;
    emulator.set_broker_faults(BrokerFaults {
        refuse_connections: true,
        ..BrokerFaults::default()
    });

    let mut stream = TcpStream::connect(emulator.amqp_addr()).await.unwrap();
    let read = within("the end of the stream", stream.read(&mut [0; 8])).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");

    emulator.set_broker_faults(BrokerFaults::default());
    Client::connect(emulator.amqp_addr()).await;
}

#[tokio::test]
async fn silent_connections_are_taken_and_never_answered() {
    let emulator = emulator().await;
    emulator.set_broker_faults(BrokerFaults {
        silent_connections: true,
        ..BrokerFaults::default()
    });

    let mut stream = TcpStream::connect(emulator.amqp_addr()).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"AMQP\x03\x01\x00\x00")
        .await
        .unwrap();

    let answer = tokio::time::timeout(Duration::from_millis(300), stream.read(&mut [0; 8])).await;
    assert!(answer.is_err(), "{answer:?}");
}

/// A message held by a receiver.
async fn locked(emulator: &Running) -> (Client, fe2o3_amqp::Delivery<Body<Value>>, fe2o3_amqp::Receiver) {
    let mut client = Client::connect(emulator.amqp_addr()).await;
    let mut sender = client.sender().await;
    send(&mut sender, "a").await;
    let mut receiver = client.receiver().await;
    let (_, delivery) = receive(&mut receiver).await;
    (client, delivery, receiver)
}
