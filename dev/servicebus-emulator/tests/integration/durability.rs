//! What survives the process, however it ends.

use std::{collections::BTreeSet, time::Duration};

use fe2o3_amqp::types::messaging::{Modified, Outcome, annotations::OwnedKey};
use futures::{StreamExt, stream::FuturesUnordered};
use serde_amqp::Value;
use servicebus_emulator::{Config, Emulator, QueueSettings, StartError, Storage};

use crate::{
    client::{Client, message, queue_name, receive, send, within},
    process::Process,
};

const QUEUE: &[&str] = &["--queue", "orders,duplicate-detection=10m"];

async fn view(process: &Process) -> serde_json::Value {
    reqwest::get(process.url("/queues/orders"))
        .await
        .unwrap()
        .json()
        .await
        .unwrap()
}

#[tokio::test]
async fn every_message_that_was_acknowledged_is_there_after_a_kill_in_the_middle_of_sending() {
    let data = tempfile::tempdir().unwrap();
    let process = Process::start(data.path(), QUEUE);
    let mut client = Client::connect(process.amqp()).await;
    let mut sender = client.sender().await;
    let mut acknowledged = BTreeSet::new();

    let mut pending = FuturesUnordered::new();
    for number in 0..300 {
        let id = format!("{number:03}");
        let outcome = sender.send_batchable(message(&id)).await.unwrap();
        pending.push(async move { (id, outcome.await) });
        if (50..200).contains(&number) {
            let (id, outcome) = within("an outcome", pending.next()).await.unwrap();
            assert!(matches!(outcome, Ok(Outcome::Accepted(_))), "{outcome:?}");
            acknowledged.insert(id);
        }
    }
    process.kill();
    // Dropping the sender ends the outcomes that will never come.
    drop(sender);
    while let Some((id, outcome)) = within("the other outcomes", pending.next()).await {
        if matches!(outcome, Ok(Outcome::Accepted(_))) {
            acknowledged.insert(id);
        }
    }

    let process = Process::start(data.path(), QUEUE);
    let mut client = Client::connect(process.amqp()).await;
    let mut receiver = client.receiver().await;
    let mut found = BTreeSet::new();
    for _ in 0..view(&process).await["active"].as_u64().unwrap() {
        let (id, delivery) = receive(&mut receiver).await;
        receiver.accept(&delivery).await.unwrap();
        found.insert(id);
    }

    assert!(acknowledged.len() >= 150);
    let lost: Vec<_> = acknowledged.difference(&found).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
}

#[tokio::test]
async fn when_the_disk_is_full_nothing_more_is_acknowledged_and_the_process_ends() {
    let data = tempfile::tempdir().unwrap();
    let process = Process::start_on_small_disk(data.path(), 8 * 1024, QUEUE);
    let mut client = Client::connect(process.amqp()).await;
    let mut sender = client.sender().await;
    // The id is the body as well.
    let large = "x".repeat(100_000);
    let mut acknowledged = 0;

    loop {
        let outcome = sender
            .send_batchable(message(&format!("{acknowledged}{large}")))
            .await;
        let Ok(outcome) = outcome else { break };
        tokio::select! {
            outcome = outcome => {
                assert!(matches!(outcome, Ok(Outcome::Accepted(_))), "{outcome:?}");
                acknowledged += 1;
            }
            _ = client.connection.on_close() => break,
        }
        assert!(acknowledged < 100, "the disk did not fill up");
    }
    let status = within("the end of the process", process.ended()).await;

    assert!(
        !status.success() && acknowledged > 0,
        "{status} after {acknowledged} messages"
    );
    let process = Process::start(data.path(), QUEUE);
    let kept = view(&process).await["active"].as_u64().unwrap();
    assert!(
        kept >= acknowledged,
        "{kept} of {acknowledged} acknowledged messages are there"
    );
}

#[tokio::test]
async fn counts_numbers_and_the_memory_of_duplicates_survive_and_locks_do_not() {
    let data = tempfile::tempdir().unwrap();
    let process = Process::start(data.path(), QUEUE);
    let mut client = Client::connect(process.amqp()).await;
    let mut sender = client.sender().await;
    for id in ["done", "failed", "held"] {
        send(&mut sender, id).await;
    }
    let mut receiver = client.receiver().await;
    let (_, done) = receive(&mut receiver).await;
    receiver.accept(&done).await.unwrap();
    let (_, failed) = receive(&mut receiver).await;
    let abandon = Modified {
        delivery_failed: Some(true),
        undeliverable_here: None,
        message_annotations: None,
    };
    receiver.modify(&failed, abandon).await.unwrap();
    // It comes back at once, in its old place; then the one behind it.
    let (_, _held) = receive(&mut receiver).await;
    let (_, _held_too) = receive(&mut receiver).await;
    let before = view(&process).await;
    assert_eq!(
        (
            before["locked"].as_u64(),
            before["counters"]["completed"].as_u64()
        ),
        (Some(2), Some(1))
    );

    process.kill();
    let process = Process::start(data.path(), QUEUE);

    let after = view(&process).await;
    assert_eq!(
        (after["active"].as_u64(), after["locked"].as_u64()),
        (Some(2), Some(0))
    );
    let mut client = Client::connect(process.amqp()).await;
    let mut sender = client.sender().await;
    send(&mut sender, "done").await;
    send(&mut sender, "new").await;
    let mut receiver = client.receiver().await;
    let mut deliveries = Vec::new();
    for _ in 0..3 {
        let (id, delivery) = receive(&mut receiver).await;
        let message = delivery.message();
        let annotations = &message.message_annotations.as_ref().unwrap().0;
        let number = annotations
            .get(&OwnedKey::from("x-opt-sequence-number"))
            .cloned()
            .unwrap();
        deliveries.push((id, message.header.as_ref().unwrap().delivery_count, number));
    }
    let expected = [("failed", 1, 2), ("held", 0, 3), ("new", 0, 4)]
        .map(|(id, count, number)| (id.to_owned(), count, Value::Long(number)));
    assert_eq!(deliveries, expected);
    assert_eq!(view(&process).await["counters"]["duplicates"].as_u64(), Some(1));
}

#[tokio::test]
async fn queues_made_or_deleted_over_the_admin_port_stay_so() {
    let data = tempfile::tempdir().unwrap();
    let process = Process::start(data.path(), &["--queue", "configured"]);
    let http = reqwest::Client::new();
    let settings = serde_json::json!({ "lock": "7s" });
    for queue in ["made", "deleted"] {
        http.put(process.url(&format!("/queues/{queue}")))
            .json(&settings)
            .send()
            .await
            .unwrap()
            .error_for_status()
            .unwrap();
    }
    http.delete(process.url("/queues/deleted"))
        .send()
        .await
        .unwrap()
        .error_for_status()
        .unwrap();

    process.kill();
    let process = Process::start(data.path(), &["--queue", "configured,lock=9s"]);

    let queues: serde_json::Value = reqwest::get(process.url("/queues"))
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let found: Vec<_> = queues
        .as_array()
        .unwrap()
        .iter()
        .map(|queue| {
            (
                queue["name"].as_str().unwrap(),
                queue["settings"]["lock"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(found, [("configured", "9s"), ("made", "7s")]);
}

#[tokio::test]
async fn an_emulator_in_the_same_process_can_be_stopped_and_started_on_the_same_directory() {
    let data = tempfile::tempdir().unwrap();
    let config = Config::in_memory()
        .with_directory(data.path())
        .with_queue(queue_name("orders"), QueueSettings::default());
    let emulator = Emulator::start(config.clone()).await.unwrap();
    let mut client = Client::connect(emulator.amqp_addr()).await;
    send(&mut client.sender().await, "a").await;
    within("stopping", emulator.stop()).await;

    let emulator = Emulator::start(config).await.unwrap();

    assert_eq!(
        emulator.queue(&queue_name("orders")).unwrap().counts.main.active,
        1
    );
}

#[tokio::test]
async fn a_scheduled_message_that_fell_due_while_nothing_ran_appears_at_the_start() {
    let data = tempfile::tempdir().unwrap();
    let config = Config {
        storage: Storage::Directory(data.path().to_owned()),
        ..Config::in_memory().with_queue(
            queue_name("orders"),
            QueueSettings {
                ttl: Some(Duration::from_millis(50)),
                ..QueueSettings::default()
            },
        )
    };
    let emulator = Emulator::start(config.clone()).await.unwrap();
    let mut client = Client::connect(emulator.amqp_addr()).await;
    send(&mut client.sender().await, "short-lived").await;
    within("stopping", emulator.stop()).await;
    tokio::time::sleep(Duration::from_millis(60)).await;

    let emulator = Emulator::start(config).await.unwrap();

    let counts = emulator.queue(&queue_name("orders")).unwrap().counts.main;
    assert_eq!(counts.active, 0, "its time ended while nothing ran");
}

#[tokio::test]
async fn a_second_emulator_on_the_same_directory_says_so() {
    let data = tempfile::tempdir().unwrap();
    let config = Config::in_memory().with_directory(data.path());
    let _first = Emulator::start(config.clone()).await.unwrap();

    let second = Emulator::start(config).await.unwrap_err();

    assert!(matches!(second, StartError::Store(_)), "{second:?}");
}
