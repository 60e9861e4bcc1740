//! What doctor and readiness say of a queue, and that looking leaves it as it was.

use checks::{Check, Outcome};
use servicebus::{Client, Credential, SenderOptions};
use servicebus_emulator::{QueueFaults, faults::Refusals};

use crate::broker::{a_message, a_queue, an_emulated_queue, drain, messages, recv, send, send_one, within};

fn assert_missing(checks: &[Check], what: &str, remedy: &str) {
    for check in checks {
        assert!(check.is_missing(), "{check}");
        assert!(check.outcome.message().contains(what), "{check}");
        assert!(check.remedy.clone().unwrap().contains(remedy), "{check}");
    }
}

#[tokio::test]
async fn a_queue_that_can_be_used_is_well_and_its_messages_stay_as_they_were() {
    let broker = a_queue().await;
    let client = broker.client();
    send_one(&client, &broker.queue, "m").await;

    let checks = within(servicebus::checks::queue(&client, &broker.queue)).await;

    assert!(
        checks.iter().all(|check| matches!(check.outcome, Outcome::Ok(_))),
        "{checks:?}"
    );
    let message = recv(&client.receiver(&broker.queue, 1)).await;
    assert_eq!((message.message_id.as_str(), message.delivery_count), ("m", 0));
}

#[tokio::test]
async fn a_missing_queue_is_told_both_ways_with_the_command_that_makes_it() {
    let broker = a_queue().await;

    let checks = within(servicebus::checks::queue(&broker.client(), "nowhere")).await;

    assert_eq!(checks.len(), 2);
    assert_missing(
        &checks,
        "there is no queue nowhere",
        "az servicebus queue create ",
    );
}

#[tokio::test]
async fn a_wrong_key_is_told_both_ways_and_not_shown() {
    let broker = a_queue().await;
    let mut settings = broker.settings.clone();
    settings.credential = Credential::SharedAccessKey {
        name: "RootManageSharedAccessKey".into(),
        key: "bm90IHRoZSBrZXk=".into(),
    };

    let checks = within(servicebus::checks::queue(&Client::new(settings), &broker.queue)).await;

    assert_missing(
        &checks,
        "key RootManageSharedAccessKey is not accepted",
        "authorization-rule keys list",
    );
    assert!(
        checks.iter().all(|check| !check.to_string().contains("bm90")),
        "{checks:?}"
    );
}

#[tokio::test]
async fn a_right_that_only_one_way_lacks_is_told_of_that_way() {
    let Some(broker) = an_emulated_queue("").await else {
        return;
    };
    let client = broker.client();
    within(client.connected()).await.unwrap();
    broker.set_faults(QueueFaults {
        refuse_attaches: Some(Refusals {
            next: 1,
            condition: "amqp:unauthorized-access".to_owned(),
            description: "Unauthorized access. 'Send' claim(s) are required to perform this operation."
                .to_owned(),
        }),
        ..QueueFaults::default()
    });

    let checks = within(servicebus::checks::queue(&client, &broker.queue)).await;

    assert_eq!(
        checks.iter().filter(|check| check.is_missing()).count(),
        1,
        "{checks:?}"
    );
}

#[tokio::test]
async fn a_broker_that_is_away_may_come_back_by_itself() {
    let Some(mut broker) = an_emulated_queue("").await else {
        return;
    };
    broker.settings.timeouts.connect = std::time::Duration::from_millis(300);
    broker.stop().await;

    let checks = within(servicebus::checks::queue(&broker.client(), &broker.queue)).await;

    assert!(
        checks
            .iter()
            .all(|check| matches!(check.outcome, Outcome::Unavailable(_))),
        "{checks:?}"
    );
}

#[tokio::test]
async fn peeking_shows_messages_in_order_and_leaves_them() {
    let broker = a_queue().await;
    let client = broker.client();
    send(
        &client.sender(&broker.queue, SenderOptions::default()),
        messages(5),
    )
    .await;

    let first = within(client.peek(&broker.queue, 0, 3)).await.unwrap();
    let next = first.last().unwrap().sequence_number + 1;
    let rest = within(client.peek(&broker.queue, next, 100)).await.unwrap();
    let none = within(client.peek(&broker.queue, rest.last().unwrap().sequence_number + 1, 100))
        .await
        .unwrap();

    let ids: Vec<_> = first
        .iter()
        .chain(&rest)
        .map(|message| message.message_id.as_str())
        .collect();
    assert_eq!(ids, ["m0", "m1", "m2", "m3", "m4"]);
    assert_eq!(first[0].body, a_message("m0").body);
    assert!(first[0].enqueued_at.is_some());
    assert!(none.is_empty());
    assert_eq!(drain(&client.receiver(&broker.queue, 5), 5).await.len(), 5);
}

#[tokio::test]
async fn a_dead_letter_can_be_peeked_with_its_reason() {
    let broker = a_queue().await;
    let client = broker.client();
    send_one(&client, &broker.queue, "m").await;
    let receiver = client.receiver(&broker.queue, 1);
    let message = recv(&receiver).await;
    within(receiver.dead_letter(&message, "Malformed", "no JSON"))
        .await
        .unwrap();

    let dead = within(client.peek(&broker.dead_letter_queue(), 0, 10))
        .await
        .unwrap();

    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].message_id, "m");
    assert_eq!(dead[0].dead_letter_reason(), Some("Malformed"));
    assert_eq!(dead[0].dead_letter_description(), Some("no JSON"));
}
