//! Sending, receiving and settling when nothing goes wrong.

use std::num::NonZeroUsize;

use servicebus::{Error, Outcome, Outgoing, Property, SenderOptions};
use uuid::Uuid;

use crate::broker::{a_message, a_queue, drain, messages, recv, send, send_one, within};

#[tokio::test]
async fn message_arrives_as_it_was_sent() {
    let broker = a_queue().await;
    let client = broker.client();
    let sent = Outgoing {
        message_id: "0190d7c8-7a5b-7000-8000-0123456789ab".into(),
        body: b"{\"reportId\":1}".as_slice().into(),
        content_type: Some("application/json".into()),
        subject: Some("ExportRequested".into()),
        correlation_id: Some("request-7".into()),
        application_properties: [
            (
                "traceparent".to_owned(),
                Property::from("00-4bf92f3577b34da6-00f067aa0ba902b7-01"),
            ),
            ("version".to_owned(), Property::from(1_i64)),
            ("urgent".to_owned(), Property::from(true)),
            ("owner".to_owned(), Property::from(Uuid::from_u128(42))),
        ]
        .into(),
    };

    send(
        &client.sender(&broker.queue, SenderOptions::default()),
        vec![sent.clone()],
    )
    .await;
    let receiver = client.receiver(&broker.queue, 1);
    let received = recv(&receiver).await;

    assert_eq!(received.message_id, sent.message_id);
    assert_eq!(received.body, sent.body);
    assert_eq!(received.content_type, sent.content_type);
    assert_eq!(received.subject, sent.subject);
    assert_eq!(received.correlation_id, sent.correlation_id);
    assert_eq!(received.application_properties, sent.application_properties);
    assert_eq!(received.delivery_count, 0);
    assert!(received.sequence_number > 0);
    assert!(received.enqueued_at.unwrap() < received.locked_until);
    within(receiver.complete(&received)).await.unwrap();
}

#[tokio::test]
async fn completed_message_is_gone() {
    let broker = a_queue().await;
    let client = broker.client();
    send_one(&client, &broker.queue, "first").await;
    let receiver = client.receiver(&broker.queue, 1);

    assert_eq!(drain(&receiver, 1).await, ["first"]);
    send_one(&client, &broker.queue, "second").await;

    assert_eq!(drain(&receiver, 1).await, ["second"]);
}

#[tokio::test]
async fn messages_in_batches_arrive_each_in_order() {
    let broker = a_queue().await;
    let client = broker.client();
    let options = SenderOptions {
        batch_messages: NonZeroUsize::new(30).unwrap(),
        in_flight: NonZeroUsize::new(4).unwrap(),
        ..SenderOptions::default()
    };

    send(&client.sender(&broker.queue, options), messages(250)).await;
    let receiver = client.receiver(&broker.queue, 50);

    let expected: Vec<_> = messages(250)
        .into_iter()
        .map(|message| message.message_id)
        .collect();
    assert_eq!(drain(&receiver, 250).await, expected);
}

#[tokio::test]
async fn batch_larger_than_the_queue_takes_at_once_is_split() {
    let broker = a_queue().await;
    let client = broker.client();
    // 2 MB together; the service's limits are 256 KB and 1 MB.
    let large = (0..20).map(|number| Outgoing {
        body: vec![b'x'; 100_000].into(),
        ..a_message(&format!("m{number}"))
    });

    send(
        &client.sender(&broker.queue, SenderOptions::default()),
        large.collect(),
    )
    .await;

    let receiver = client.receiver(&broker.queue, 5);
    assert_eq!(drain(&receiver, 20).await.len(), 20);
}

#[tokio::test]
async fn message_too_large_is_refused_alone_and_the_link_stays_good() {
    let broker = a_queue().await;
    let client = broker.client();
    let sender = client.sender(&broker.queue, SenderOptions::default());
    let huge = Outgoing {
        body: vec![0; 150_000_000].into(),
        ..a_message("huge")
    };

    let report = within(sender.send(vec![a_message("before"), huge, a_message("after")])).await;

    let [Outcome::Accepted, Outcome::Refused(refused), Outcome::Accepted] = &report.outcomes[..] else {
        panic!("{report:?}");
    };
    assert!(matches!(refused, Error::MessageTooLarge { .. }), "{refused:?}");
    assert!(!refused.is_retriable());
    send(&sender, vec![a_message("later")]).await;
    assert_eq!(client.health().connections_opened, 1);
    let receiver = client.receiver(&broker.queue, 3);
    assert_eq!(drain(&receiver, 3).await, ["before", "after", "later"]);
}

#[tokio::test]
async fn abandoned_message_comes_again_with_a_higher_delivery_count() {
    let broker = a_queue().await;
    let client = broker.client();
    send_one(&client, &broker.queue, "m").await;
    let receiver = client.receiver(&broker.queue, 1);

    for delivery_count in 0..3 {
        let message = recv(&receiver).await;
        assert_eq!(message.delivery_count, delivery_count);
        within(receiver.abandon(&message)).await.unwrap();
    }

    let message = recv(&receiver).await;
    assert_eq!(message.delivery_count, 3);
    within(receiver.complete(&message)).await.unwrap();
}

#[tokio::test]
async fn dead_lettered_message_tells_why() {
    let broker = a_queue().await;
    let client = broker.client();
    send_one(&client, &broker.queue, "poison").await;
    let receiver = client.receiver(&broker.queue, 1);

    let message = recv(&receiver).await;
    within(receiver.dead_letter(&message, "Unreadable", "expected value at line 1"))
        .await
        .unwrap();

    let dead_letters = client.receiver(&broker.dead_letter_queue(), 1);
    let dead = recv(&dead_letters).await;
    assert_eq!(dead.message_id, "poison");
    assert_eq!(dead.body, "body of poison");
    assert_eq!(dead.dead_letter_reason(), Some("Unreadable"));
    assert_eq!(dead.dead_letter_description(), Some("expected value at line 1"));
    within(dead_letters.complete(&dead)).await.unwrap();
}

#[tokio::test]
async fn many_messages_are_settled_at_the_same_time() {
    let broker = a_queue().await;
    let client = broker.client();
    send(
        &client.sender(&broker.queue, SenderOptions::default()),
        messages(100),
    )
    .await;
    let receiver = client.receiver(&broker.queue, 20);

    let mut held = Vec::new();
    for _ in 0..100 {
        held.push(recv(&receiver).await);
        if held.len() == 20 {
            let settled = held.iter().map(|message| receiver.complete(message));
            within(futures::future::try_join_all(settled)).await.unwrap();
            held.clear();
        }
    }

    send_one(&client, &broker.queue, "last").await;
    assert_eq!(drain(&receiver, 1).await, ["last"]);
}

#[tokio::test]
async fn nothing_to_send_is_sent_at_once() {
    let broker = a_queue().await;
    let client = broker.client();

    let report = within(
        client
            .sender(&broker.queue, SenderOptions::default())
            .send(Vec::new()),
    )
    .await;

    assert!(report.outcomes.is_empty());
}

#[tokio::test]
async fn closed_client_says_so_and_gives_back_what_it_had_fetched() {
    let broker = a_queue().await;
    let client = broker.client();
    let sender = client.sender(&broker.queue, SenderOptions::default());
    send(&sender, messages(3)).await;
    let receiver = client.receiver(&broker.queue, 3);
    let held = recv(&receiver).await;
    within(receiver.complete(&held)).await.unwrap();
    let second = client.receiver(&broker.queue, 1);

    within(receiver.close()).await;
    within(client.close()).await;

    assert!(matches!(within(second.recv()).await, Err(Error::Closed)));
    assert!(matches!(
        within(client.probe(&broker.queue)).await,
        Err(Error::Closed)
    ));
    let report = within(sender.send(vec![a_message("late")])).await;
    assert!(
        matches!(report.outcomes[..], [Outcome::Refused(Error::Closed)]),
        "{report:?}"
    );
    assert!(!client.health().connected);
    // At once, and not after the lock has run out.
    let another = broker.client();
    let receiver = another.receiver(&broker.queue, 1);
    assert_eq!(drain(&receiver, 2).await, ["m1", "m2"]);
}
