//! The client: one supervised connection, and the senders and receivers on it.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::Error;
use crate::health::Health;
use crate::receiver::Receiver;
use crate::sender::{Link, Sender, SenderOptions};
use crate::settings::Settings;
use crate::supervisor::Shared;

/// A client of one Service Bus namespace. Clones share the connection.
///
/// It connects at the first use, and from then on keeps a connection: after any loss it tries again, with
/// [`Settings::reconnect`] between the attempts, and never gives up. When the last clone and the last sender
/// and receiver are dropped, the connection closes.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

impl Client {
    /// Makes a client; nothing is sent yet.
    ///
    /// Must be called within a Tokio runtime, which then runs the client's background tasks.
    pub fn new(settings: Settings) -> Self {
        Self {
            shared: Arc::new(Shared::start(settings)),
        }
    }

    /// A sender to a queue. It attaches at the first send.
    pub fn sender(&self, queue: &str, options: SenderOptions) -> Sender {
        Sender::new(Arc::clone(&self.shared), queue, options)
    }

    /// A receiver from a queue, with at most `credit` messages held at a time (at least 1). It attaches at
    /// once, in the background. Must be called within a Tokio runtime.
    ///
    /// The dead-letter queue of `orders` is `orders/$DeadLetterQueue`.
    pub fn receiver(&self, queue: &str, credit: u32) -> Receiver {
        Receiver::start(Arc::clone(&self.shared), queue, credit)
    }

    /// Waits until a connection is open, however long that takes; starts connecting if need be.
    ///
    /// # Errors
    ///
    /// A failure that does not pass by itself, or [`Error::Closed`].
    pub async fn connected(&self) -> Result<(), Error> {
        self.shared.connection(None).await.map(drop)
    }

    /// Checks that the queue can be used: connects if need be, authorises, attaches a sending link and closes
    /// it again. Sends no message.
    ///
    /// # Errors
    ///
    /// The first failure, within the time-outs for connect, request and attach.
    pub async fn probe(&self, queue: &str) -> Result<(), Error> {
        let timeouts = &self.shared.settings.timeouts;
        let connection = self
            .shared
            .connection(Some(Instant::now() + timeouts.connect))
            .await?;
        let link = Link::attach(&connection, &queue.into(), timeouts).await?;
        link.close(timeouts).await;
        Ok(())
    }

    /// The connection's state now.
    pub fn health(&self) -> Health {
        self.shared.reporter.health()
    }

    /// The connection's state and its changes.
    pub fn watch_health(&self) -> watch::Receiver<Health> {
        self.shared.reporter.subscribe()
    }

    /// Closes links, sessions and the connection in order, each within [`crate::Timeouts::close`]. Messages
    /// that receivers have fetched and not handed out go back to the queue. Afterwards every operation of the
    /// client, its senders and its receivers gives [`Error::Closed`].
    pub async fn close(&self) {
        self.shared.close().await;
    }
}
