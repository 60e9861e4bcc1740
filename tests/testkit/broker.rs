//! A Service Bus emulator of the test's own, that it may take down.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use servicebus_emulator::{Config, Emulator, QueueName, QueueSettings, QueueView, Running};
use tokio::sync::Mutex;

use crate::platform::Platform;
use crate::world::World;

/// The queue that the product uses unless told otherwise.
const QUEUE: &str = "report-requests";
/// How long a message stays locked to a consumer that is gone. Short, so that a test sees it delivered again.
const LOCK: Duration = Duration::from_secs(5);

/// The broker, with the product's queue. It keeps messages in the test's folder, so that they are there
/// again after an outage.
pub struct Broker {
    address: SocketAddr,
    folder: PathBuf,
    connection_string: SecretString,
    running: Mutex<Option<Running>>,
}

impl Broker {
    /// Starts it where Pods reach it.
    pub async fn start(platform: &Platform, folder: &Path) -> Self {
        let address = World::free_address(&platform.pods_host);
        let folder = folder.join("broker");
        let running = run(address, &folder).await;
        Self {
            address,
            folder,
            connection_string: running.connection_string(),
            running: Mutex::new(Some(running)),
        }
    }

    /// Where it listens, for Pods too.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// With the key in it.
    pub fn connection_string(&self) -> String {
        self.connection_string.expose_secret().to_owned()
    }

    /// Drops all connections; new ones are refused.
    pub async fn take_down(&self) {
        let running = self.running.lock().await.take();
        running.expect("the broker is up").stop().await;
    }

    /// At the same address, with the messages that it had.
    pub async fn bring_back(&self) {
        let before = self
            .running
            .lock()
            .await
            .replace(run(self.address, &self.folder).await);
        assert!(before.is_none(), "the broker was up");
    }

    /// Ends it for good.
    pub async fn stop(self) {
        if let Some(running) = self.running.into_inner() {
            running.stop().await;
        }
    }

    /// Makes another queue.
    pub async fn add_queue(&self, name: &str) {
        let running = self.running.lock().await;
        let running = running.as_ref().expect("the broker is up");
        let name = name.parse().expect("a queue name");
        assert!(running.define_queue(&name, settings()), "there was such a queue");
    }

    /// How many messages it has accepted since it was last started.
    pub async fn accepted(&self) -> u64 {
        self.queue().await.counters.sent
    }

    /// How many messages are in the queue, locked ones too.
    pub async fn waiting(&self) -> usize {
        let main = self.queue().await.counts.main;
        main.active + main.locked
    }

    /// How many messages are dead letters.
    pub async fn dead_lettered(&self) -> usize {
        let part = self.queue().await.counts.dead_letters;
        part.active + part.locked
    }

    async fn queue(&self) -> QueueView {
        let running = self.running.lock().await;
        let running = running.as_ref().expect("the broker is up");
        running.queue(&queue_name()).expect("the queue is there")
    }
}

async fn run(address: SocketAddr, folder: &Path) -> Running {
    let mut config = Config::in_memory()
        .with_directory(folder)
        .with_queue(queue_name(), settings());
    config.listen = vec![address];
    Emulator::start(config)
        .await
        .unwrap_or_else(|error| panic!("the Service Bus emulator does not start: {error:?}"))
}

fn settings() -> QueueSettings {
    QueueSettings {
        lock_duration: LOCK,
        ..QueueSettings::default()
    }
}

fn queue_name() -> QueueName {
    QUEUE.parse().expect("a queue name")
}
