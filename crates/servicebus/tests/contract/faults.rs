//! Sending when something goes wrong under way: nothing hangs, and every message has a true outcome.

use std::time::{Duration, Instant};

use servicebus::{Cause, Client, Condition, Error, Outcome, SenderOptions};
use servicebus_emulator::{QueueFaults, Refusals};

use crate::broker::{Broker, a_message, an_emulated_queue, drain, messages, only, send, within};

fn refusals(next: u32, condition: &str) -> Option<Refusals> {
    Some(Refusals {
        next,
        condition: condition.to_owned(),
        description: "on purpose".to_owned(),
    })
}

fn no_retries() -> SenderOptions {
    SenderOptions {
        retries: 0,
        ..SenderOptions::default()
    }
}

async fn send_to(client: &Client, broker: &Broker) -> Outcome {
    only(
        within(
            client
                .sender(&broker.queue, SenderOptions::default())
                .send(vec![a_message("m")]),
        )
        .await,
    )
}

#[tokio::test]
async fn peer_killed_mid_send_leaves_the_outcome_unknown_and_does_not_hang() {
    let Some(broker) = an_emulated_queue("").await else {
        return;
    };
    let client = broker.client();
    let sender = client.sender(&broker.queue, SenderOptions::default());
    send(&sender, vec![a_message("before")]).await;
    broker.set_faults(QueueFaults {
        drop_after_sends: 1,
        ..QueueFaults::default()
    });

    let start = Instant::now();
    let outcome = only(within(sender.send(vec![a_message("torn")])).await);

    let Outcome::Unknown(error) = outcome else {
        panic!("{outcome:?}")
    };
    assert!(error.is_retriable(), "{error:?}");
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "took {:?}",
        start.elapsed()
    );
    send(&sender, vec![a_message("after")]).await;
    // The broker had stored it: that is why it must not be called refused.
    let receiver = client.receiver(&broker.queue, 3);
    assert_eq!(drain(&receiver, 3).await, ["before", "torn", "after"]);
}

#[tokio::test]
async fn batches_confirmed_before_the_peer_died_are_accepted_and_those_not_begun_are_sent_anew() {
    let Some(broker) = an_emulated_queue("").await else {
        return;
    };
    let client = broker.client();
    let options = SenderOptions {
        batch_messages: 10.try_into().unwrap(),
        in_flight: 1.try_into().unwrap(),
        ..SenderOptions::default()
    };
    broker.set_faults(QueueFaults {
        drop_after_sends: 2,
        ..QueueFaults::default()
    });

    let report = within(client.sender(&broker.queue, options).send(messages(40))).await;

    let unknown: Vec<_> = report
        .outcomes
        .iter()
        .enumerate()
        .filter(|(_, outcome)| !matches!(outcome, Outcome::Accepted))
        .map(|(place, outcome)| (place, matches!(outcome, Outcome::Unknown(_))))
        .collect();
    assert_eq!(unknown, (10..20).map(|place| (place, true)).collect::<Vec<_>>());
    broker.until_counts(40, 0).await;
}

#[tokio::test]
async fn silent_peer_is_noticed_by_the_idle_time_out() {
    let Some(broker) = an_emulated_queue("").await else {
        return;
    };
    let mut settings = broker.settings.clone();
    settings.timeouts.idle = Duration::from_secs(1);
    let client = Client::new(settings);
    let sender = client.sender(&broker.queue, SenderOptions::default());
    send(&sender, vec![a_message("before")]).await;
    broker.set_faults(QueueFaults {
        silent_after_sends: 1,
        ..QueueFaults::default()
    });

    let start = Instant::now();
    let outcome = only(within(sender.send(vec![a_message("unanswered")])).await);

    let Outcome::Unknown(Error::Send { source, .. }) = outcome else {
        panic!("{outcome:?}")
    };
    assert!(matches!(source, Cause::PeerSilent), "{source:?}");
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "took {:?}",
        start.elapsed()
    );
    send(&sender, vec![a_message("after")]).await;
}

#[tokio::test]
async fn lost_outcome_is_given_up_at_the_deadline() {
    let Some(broker) = an_emulated_queue("").await else {
        return;
    };
    let mut settings = broker.settings.clone();
    settings.timeouts.send = Duration::from_secs(1);
    let client = Client::new(settings);
    let sender = client.sender(&broker.queue, SenderOptions::default());
    broker.set_faults(QueueFaults {
        lose_outcomes: 1,
        ..QueueFaults::default()
    });

    let outcome = only(within(sender.send(vec![a_message("unanswered")])).await);

    let Outcome::Unknown(Error::Send { source, .. }) = outcome else {
        panic!("{outcome:?}")
    };
    assert!(matches!(source, Cause::TimedOut(_)), "{source:?}");
    send(&sender, vec![a_message("after")]).await;
    assert_eq!(client.health().connections_opened, 1);
}

#[tokio::test]
async fn busy_broker_is_left_alone_for_a_while_and_then_tried_again() {
    let Some(broker) = an_emulated_queue("").await else {
        return;
    };
    let client = broker.client();
    broker.set_faults(QueueFaults {
        refuse_sends: refusals(2, Condition::SERVER_BUSY),
        ..QueueFaults::default()
    });

    let start = Instant::now();
    let outcome = send_to(&client, &broker).await;

    assert!(matches!(outcome, Outcome::Accepted), "{outcome:?}");
    assert!(
        start.elapsed() >= 2 * broker.settings.busy_pause,
        "took {:?}",
        start.elapsed()
    );
    assert_eq!(client.health().connections_opened, 1);
}

#[tokio::test]
async fn sender_without_retries_hands_the_busy_broker_s_pause_to_its_caller() {
    let Some(broker) = an_emulated_queue("").await else {
        return;
    };
    let client = broker.client();
    broker.set_faults(QueueFaults {
        refuse_sends: refusals(1, Condition::SERVER_BUSY),
        ..QueueFaults::default()
    });

    let report = within(client.sender(&broker.queue, no_retries()).send(messages(3))).await;

    for outcome in report.outcomes {
        let Outcome::Refused(error) = outcome else {
            panic!("{outcome:?}")
        };
        assert!(error.is_retriable());
        assert_eq!(error.retry_after(), Some(servicebus::BUSY_PAUSE));
    }
    broker.until_counts(0, 0).await;
}

#[tokio::test]
async fn pause_of_a_busy_broker_holds_for_the_next_call() {
    let Some(broker) = an_emulated_queue("").await else {
        return;
    };
    let client = broker.client();
    let sender = client.sender(&broker.queue, no_retries());
    broker.set_faults(QueueFaults {
        refuse_sends: refusals(1, Condition::SERVER_BUSY),
        ..QueueFaults::default()
    });

    let start = Instant::now();
    within(sender.send(messages(1))).await;
    send(&sender, vec![a_message("later")]).await;

    assert!(
        start.elapsed() >= broker.settings.busy_pause,
        "took {:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn batch_refused_for_one_of_its_messages_is_taken_apart() {
    let Some(broker) = an_emulated_queue("").await else {
        return;
    };
    let client = broker.client();
    broker.set_faults(QueueFaults {
        refuse_sends: refusals(2, "com.microsoft:argument-error"),
        ..QueueFaults::default()
    });

    let report = within(client.sender(&broker.queue, no_retries()).send(messages(3))).await;

    // The batch was the first refusal, its first message alone the second.
    let [Outcome::Refused(error), Outcome::Accepted, Outcome::Accepted] = &report.outcomes[..] else {
        panic!("{report:?}");
    };
    assert!(!error.is_retriable());
}

#[tokio::test]
async fn full_queue_refuses_the_batch_as_a_whole() {
    let Some(broker) = an_emulated_queue("").await else {
        return;
    };
    let client = broker.client();
    broker.set_faults(QueueFaults {
        refuse_sends: refusals(1, "amqp:resource-limit-exceeded"),
        ..QueueFaults::default()
    });

    let report = within(
        client
            .sender(&broker.queue, SenderOptions::default())
            .send(messages(3)),
    )
    .await;

    assert!(
        report
            .outcomes
            .iter()
            .all(|outcome| matches!(outcome, Outcome::Refused(error) if !error.is_retriable())),
        "{report:?}"
    );
}

#[tokio::test]
async fn attach_refused_for_a_passing_reason_is_tried_again() {
    let Some(broker) = an_emulated_queue("").await else {
        return;
    };
    let client = broker.client();
    broker.set_faults(QueueFaults {
        refuse_attaches: refusals(2, "com.microsoft:timeout"),
        ..QueueFaults::default()
    });

    let outcome = send_to(&client, &broker).await;

    assert!(matches!(outcome, Outcome::Accepted), "{outcome:?}");
}

#[tokio::test]
async fn nobody_listening_is_refused_at_the_deadline_and_may_be_tried_again() {
    let Some(mut broker) = an_emulated_queue("").await else {
        return;
    };
    broker.stop().await;
    let mut settings = broker.settings.clone();
    settings.timeouts.send = Duration::from_millis(500);
    let client = Client::new(settings);

    let outcome = send_to(&client, &broker).await;

    let Outcome::Refused(error) = outcome else {
        panic!("{outcome:?}")
    };
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    assert!(error.is_retriable());
    let health = client.health();
    assert!(!health.connected);
    assert!(health.failed_attempts > 0);
}

#[tokio::test]
async fn sender_stays_usable_when_a_send_is_given_up_half_way() {
    let Some(broker) = an_emulated_queue("").await else {
        return;
    };
    let client = broker.client();
    let sender = client.sender(&broker.queue, SenderOptions::default());
    send(&sender, vec![a_message("before")]).await;
    broker.set_faults(QueueFaults {
        lose_outcomes: 1,
        ..QueueFaults::default()
    });

    let given_up = tokio::time::timeout(
        Duration::from_millis(200),
        sender.send(vec![a_message("given up")]),
    )
    .await;

    assert!(given_up.is_err());
    send(&sender, vec![a_message("after")]).await;
    assert_eq!(client.health().connections_opened, 1);
}
