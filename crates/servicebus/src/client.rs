//! The client: one supervised connection, and the senders and receivers on it.

use tokio::sync::watch;

use crate::error::Error;
use crate::health::Health;
use crate::receiver::Receiver;
use crate::sender::{Sender, SenderOptions};
use crate::settings::Settings;

/// A client of one Service Bus namespace. Clones share the connection.
///
/// It connects at the first use, and from then on keeps a connection: after any loss it tries again, with
/// [`Settings::reconnect`] between the attempts, and never gives up. When the last clone and the last sender
/// and receiver are dropped, the connection closes.
#[derive(Debug, Clone)]
pub struct Client {
    health: watch::Receiver<Health>,
}

impl Client {
    /// Makes a client; nothing is sent yet.
    ///
    /// Must be called within a Tokio runtime, which then runs the client's background tasks.
    pub fn new(_settings: Settings) -> Self {
        let (_, health) = watch::channel(Health::default());
        Self { health }
    }

    /// A sender to a queue. It attaches at the first send.
    pub fn sender(&self, _queue: &str, _options: SenderOptions) -> Sender {
        Sender {}
    }

    /// A receiver from a queue, with at most `credit` messages held at a time (at least 1). It attaches at
    /// once, in the background.
    ///
    /// The dead-letter queue of `orders` is `orders/$DeadLetterQueue`.
    pub fn receiver(&self, _queue: &str, _credit: u32) -> Receiver {
        Receiver {}
    }

    /// Checks that the queue can be used: connects if need be, authorises, attaches a sending link and closes
    /// it again. Sends no message.
    ///
    /// # Errors
    ///
    /// The first failure; within the time-outs for connect, request and attach.
    pub async fn probe(&self, _queue: &str) -> Result<(), Error> {
        Err(Error::Closed)
    }

    /// The connection's state now.
    pub fn health(&self) -> Health {
        self.health.borrow().clone()
    }

    /// The connection's state and its changes.
    pub fn watch_health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// Closes links, sessions and the connection in order, within [`crate::Timeouts::close`]. Afterwards every
    /// operation of the client, its senders and its receivers gives [`Error::Closed`].
    pub async fn close(&self) {}
}
