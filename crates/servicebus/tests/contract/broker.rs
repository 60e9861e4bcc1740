//! What the tests run against.

use std::time::Duration;

use secrecy::ExposeSecret;
use servicebus::{
    Backoff, Client, ConnectionString, Outgoing, Received, Receiver, SendReport, Sender, SenderOptions,
    Settings,
};
use servicebus_emulator::{Config, Emulator, QueueFaults, QueueName, QueueSettings, Running};
use tokio::sync::{Mutex, MutexGuard};

/// Longer than anything here takes; a test that gets here would have hung.
const PATIENCE: Duration = Duration::from_secs(20);

/// A real queue is one for all tests.
static NAMED_QUEUE: Mutex<()> = Mutex::const_new(());

/// A queue, and how to reach it.
pub struct Broker {
    pub queue: String,
    pub settings: Settings,
    emulator: Option<Running>,
    _turn: Option<MutexGuard<'static, ()>>,
}

fn named_connection_string() -> Option<ConnectionString> {
    let text = std::env::var("SERVICEBUS_TEST_CONNECTION_STRING").ok()?;
    Some(
        text.parse()
            .expect("SERVICEBUS_TEST_CONNECTION_STRING must be a connection string"),
    )
}

/// An empty queue: the named one, or one of an emulator of its own.
pub async fn a_queue() -> Broker {
    let Some(connection_string) = named_connection_string() else {
        return start("").await;
    };
    let turn = NAMED_QUEUE.lock().await;
    let queue = connection_string.entity_path.clone().unwrap_or_else(|| {
        std::env::var("SERVICEBUS_TEST_QUEUE").unwrap_or_else(|_| "servicebus-contract".to_owned())
    });
    let broker = Broker {
        queue,
        settings: quick(connection_string.into_settings()),
        emulator: None,
        _turn: Some(turn),
    };
    for queue in [broker.queue.clone(), broker.dead_letter_queue()] {
        empty(&broker.client(), &queue).await;
    }
    broker
}

async fn empty(client: &Client, queue: &str) {
    let receiver = client.receiver(queue, 50);
    while let Ok(message) = tokio::time::timeout(Duration::from_secs(3), receiver.recv()).await {
        receiver.complete(&message.unwrap()).await.unwrap();
    }
    receiver.close().await;
}

/// A queue of an emulator of its own, whose switches the test may use; `None`, with a word about it, when the
/// tests run against a named broker. `options` are those of the emulator's `--queue`, such as `lock=3s`.
pub async fn an_emulated_queue(options: &str) -> Option<Broker> {
    if named_connection_string().is_some() {
        let test = std::thread::current().name().unwrap_or("this test").to_owned();
        eprintln!("skipped {test}: needs the emulator, and SERVICEBUS_TEST_CONNECTION_STRING is set");
        return None;
    }
    Some(start(options).await)
}

async fn start(options: &str) -> Broker {
    let flag = ["queue", options]
        .iter()
        .filter(|part| !part.is_empty())
        .copied()
        .collect::<Vec<_>>()
        .join(",");
    let (name, queue) = QueueSettings::parse_flag(&flag).unwrap();
    emulated(Config::in_memory().with_queue(name, queue)).await
}

/// The queue `queue` of an emulator with this configuration.
pub async fn emulated(config: Config) -> Broker {
    let emulator = Emulator::start(config).await.unwrap();
    let connection_string: ConnectionString = emulator.connection_string().expose_secret().parse().unwrap();
    Broker {
        queue: "queue".to_owned(),
        settings: quick(connection_string.into_settings()),
        emulator: Some(emulator),
        _turn: None,
    }
}

/// Times that suit tests.
fn quick(mut settings: Settings) -> Settings {
    settings.reconnect = Backoff::new(Duration::from_millis(20), Duration::from_millis(200));
    settings.busy_pause = Duration::from_millis(300);
    settings
}

impl Broker {
    pub fn client(&self) -> Client {
        Client::new(self.settings.clone())
    }

    pub fn emulator(&self) -> &Running {
        self.emulator
            .as_ref()
            .expect("only tests on an emulated queue use its switches")
    }

    /// Stops the emulator, as a crash would: connections end without a word.
    pub async fn stop(&mut self) {
        self.emulator.take().expect("is running").stop().await;
    }

    pub async fn restart(&mut self, config: Config) {
        self.emulator = Some(Emulator::start(config).await.unwrap());
    }

    pub fn dead_letter_queue(&self) -> String {
        format!("{}/$DeadLetterQueue", self.queue)
    }

    fn name(&self) -> QueueName {
        self.queue.parse().unwrap()
    }

    pub fn set_faults(&self, faults: QueueFaults) {
        self.emulator().set_faults(&self.name(), faults).unwrap();
    }

    pub fn detach_links(&self, condition: &str, description: &str) {
        self.emulator().detach_links(&self.name(), condition, description);
    }

    pub fn expire_locks(&self) -> usize {
        self.emulator().expire_locks(&self.name()).unwrap()
    }

    /// Waits until so many messages are in the queue itself: waiting, and held by receivers.
    pub async fn until_counts(&self, active: usize, locked: usize) {
        within(async {
            loop {
                let main = self.emulator().queue(&self.name()).unwrap().counts.main;
                if (main.active, main.locked) == (active, locked) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
}

/// Fails instead of hanging.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("took too long")
}

pub fn a_message(id: &str) -> Outgoing {
    Outgoing {
        message_id: id.to_owned(),
        body: format!("body of {id}").into(),
        ..Outgoing::default()
    }
}

pub fn messages(count: usize) -> Vec<Outgoing> {
    (0..count)
        .map(|number| a_message(&format!("m{number}")))
        .collect()
}

/// Sends and expects success.
pub async fn send(sender: &Sender, messages: Vec<Outgoing>) {
    let report = within(sender.send(messages)).await;
    assert!(report.all_accepted(), "{:?}", report.first_failure());
}

pub async fn send_one(client: &Client, queue: &str, id: &str) {
    send(
        &client.sender(queue, SenderOptions::default()),
        vec![a_message(id)],
    )
    .await;
}

pub async fn recv(receiver: &Receiver) -> Received {
    within(receiver.recv()).await.unwrap()
}

/// Receives and completes so many messages, and returns their ids in the order in which they came.
pub async fn drain(receiver: &Receiver, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    while ids.len() < count {
        let message = recv(receiver).await;
        within(receiver.complete(&message)).await.unwrap();
        ids.push(message.message_id);
    }
    ids
}

/// The outcome of a report with a single message.
pub fn only(report: SendReport) -> servicebus::Outcome {
    let [outcome] = <[_; 1]>::try_from(report.outcomes).expect("one message, one outcome");
    outcome
}
