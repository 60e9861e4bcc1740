//! Service Bus by tokens put to `$cbs`: again before they end, on the same connection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use entra::{Entra, Fault, Front, Speaks};
use servicebus::{Backoff, Client, Error, Outgoing, SenderOptions, Settings};
use servicebus_emulator::{Config, Emulator, JwtIssuer, QueueSettings, Running};

use crate::support::{World, a_world, until};

const SCOPE: &str = "https://servicebus.azure.net/.default";

/// A broker behind TLS that takes the tokens of one issuer.
struct Namespace {
    front: Front,
    _emulator: Running,
}

async fn a_namespace(world: &World, issuer: &Entra) -> Namespace {
    let mut config = Config::in_memory().with_queue("queue".parse().unwrap(), QueueSettings::default());
    config.jwt_issuer = Some(JwtIssuer {
        issuer: issuer.issuer(),
        keys: issuer.keys().clone(),
    });
    let emulator = Emulator::start(config).await.unwrap();
    let target = emulator.amqp_addr().to_string();
    Namespace {
        front: Front::start(&world.tls, Speaks::Tls, "127.0.0.1", target)
            .await
            .unwrap(),
        _emulator: emulator,
    }
}

fn a_client(world: &World, namespace: &Namespace) -> Client {
    let mut settings =
        Settings::from_namespace(&namespace.front.address().to_string(), Arc::new(world.identity())).unwrap();
    settings.tls = Some(Arc::new(world.tls.client_config().unwrap()));
    settings.reconnect = Backoff::new(Duration::from_millis(20), Duration::from_millis(200));
    Client::new(settings)
}

fn a_message(id: usize) -> Outgoing {
    Outgoing {
        message_id: id.to_string(),
        body: "body".into(),
        ..Outgoing::default()
    }
}

#[tokio::test]
async fn messages_flow_over_rotations_on_one_connection() {
    let world = a_world(Duration::from_secs(2)).await;
    let namespace = a_namespace(&world, &world.entra).await;
    let client = a_client(&world, &namespace);
    let sender = client.sender("queue", SenderOptions::default());
    let receiver = client.receiver("queue", 5);
    let began = Instant::now();
    let mut sent = 0;

    while world.entra.issued(world.client(), SCOPE) < 5 {
        assert!(began.elapsed() < Duration::from_secs(30));
        sent += 1;
        let report = sender.send(vec![a_message(sent)]).await;
        assert!(report.all_accepted(), "{:?}", report.first_failure());
        let message = receiver.recv().await.unwrap();
        assert_eq!(message.message_id, sent.to_string());
        receiver.complete(&message).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    assert!(
        began.elapsed() > Duration::from_secs(6),
        "four rotations of a token of 2 s"
    );
    assert_eq!(namespace.front.accepted(), 1, "one connection all the time");
    client.close().await;
}

#[tokio::test]
async fn with_the_token_endpoint_away_links_end_and_come_back() {
    let world = a_world(Duration::from_secs(2)).await;
    let namespace = a_namespace(&world, &world.entra).await;
    let client = a_client(&world, &namespace);
    client.probe("queue").await.unwrap();

    world.entra.set_fault(Some(Fault::Away));
    until("the queue is closed to us", async || {
        client.probe("queue").await.is_err()
    })
    .await;
    world.entra.set_fault(None);
    until("the queue is open again", async || {
        client.probe("queue").await.is_ok()
    })
    .await;
    client.close().await;
}

#[tokio::test]
async fn a_token_of_another_issuer_is_refused() {
    let world = a_world(Duration::from_secs(60)).await;
    let other = a_world(Duration::from_secs(60)).await;
    let namespace = a_namespace(&world, &other.entra).await;
    let client = a_client(&world, &namespace);

    let error = client.probe("queue").await.unwrap_err();

    assert!(matches!(error, Error::Authorise { .. }), "{error:?}");
    assert!(
        crate::support::chain(&error).contains("InvalidToken"),
        "{}",
        crate::support::chain(&error)
    );
    client.close().await;
}
