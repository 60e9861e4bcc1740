//! Measures what a relay and a consumer would see: messages of 300 bytes sent in batches of 100, each message
//! confirmed, and then received and completed one by one.
//!
//! `cargo run --release -p servicebus --example throughput -- 'Endpoint=sb://…' QUEUE [MESSAGES]`
//!
//! The queue should be empty, and without duplicate detection unless that is to be measured too.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use servicebus::{Client, ConnectionString, Outgoing, SenderOptions};

const BODY_BYTES: usize = 300;
const BATCH: usize = 100;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: throughput CONNECTION_STRING QUEUE [MESSAGES]";
    let connection_string: ConnectionString = arguments.next().context(usage)?.parse()?;
    let queue = arguments.next().context(usage)?;
    let messages: usize = arguments.next().map_or(Ok(20_000), |text| text.parse())?;
    let client = Client::new(connection_string.into_settings());

    for in_flight in [1, 2, 8] {
        let took = send(&client, &queue, messages, in_flight).await?;
        report(
            &format!("send, batches of {BATCH}, {in_flight} in flight"),
            messages,
            took,
        );
        let took = receive(&client, &queue, messages, 100, 32).await?;
        report("receive and complete, credit 100, 32 at a time", messages, took);
    }
    let took = relay(&client, &queue, messages).await?;
    report(
        &format!("relay: one call for each {BATCH}, one after the other"),
        messages,
        took,
    );
    receive(&client, &queue, messages, 1_000, 64).await?;
    client.close().await;
    Ok(())
}

async fn send(client: &Client, queue: &str, messages: usize, in_flight: usize) -> anyhow::Result<Duration> {
    let options = SenderOptions {
        batch_messages: NonZeroUsize::new(BATCH).context("batch of nothing")?,
        in_flight: NonZeroUsize::new(in_flight).context("nothing in flight")?,
        ..SenderOptions::default()
    };
    let sender = client.sender(queue, options);
    let batch = outgoing("send", messages);
    let start = Instant::now();
    let report = sender.send(batch).await;
    let took = start.elapsed();
    ensure!(
        report.all_accepted(),
        "not all accepted: {:?}",
        report.first_failure()
    );
    sender.close().await;
    Ok(took)
}

/// As the outbox relay does: claims a hundred, sends them, marks them, and only then claims the next.
async fn relay(client: &Client, queue: &str, messages: usize) -> anyhow::Result<Duration> {
    let sender = client.sender(queue, SenderOptions::default());
    let start = Instant::now();
    for _ in 0..messages / BATCH {
        let report = sender.send(outgoing("relay", BATCH)).await;
        ensure!(
            report.all_accepted(),
            "not all accepted: {:?}",
            report.first_failure()
        );
    }
    let took = start.elapsed();
    sender.close().await;
    Ok(took)
}

async fn receive(
    client: &Client,
    queue: &str,
    messages: usize,
    credit: u32,
    at_a_time: usize,
) -> anyhow::Result<Duration> {
    let receiver = client.receiver(queue, credit);
    let start = Instant::now();
    stream::iter(0..messages)
        .map(|_| async {
            let message = receiver.recv().await?;
            receiver.complete(&message).await?;
            anyhow::Ok(())
        })
        .buffer_unordered(at_a_time)
        .try_collect::<()>()
        .await?;
    let took = start.elapsed();
    receiver.close().await;
    Ok(took)
}

fn outgoing(prefix: &str, messages: usize) -> Vec<Outgoing> {
    (0..messages)
        .map(|number| Outgoing {
            message_id: format!("{prefix}-{number}"),
            body: vec![b'x'; BODY_BYTES].into(),
            content_type: Some("application/json".to_owned()),
            application_properties: [("type".to_owned(), "ExportRequested".into())].into(),
            ..Outgoing::default()
        })
        .collect()
}

fn report(what: &str, messages: usize, took: Duration) {
    let rate = f64::from(u32::try_from(messages).unwrap_or(u32::MAX)) / took.as_secs_f64();
    println!("{what}: {messages} messages in {took:.2?}, {rate:.0} a second");
}
