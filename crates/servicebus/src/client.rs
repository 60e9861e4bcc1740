//! The client: one supervised connection, and the senders and receivers on it.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::decode;
use crate::error::Error;
use crate::health::Health;
use crate::management::Management;
use crate::message::Peeked;
use crate::receiver::{self, Receiver};
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

    /// Checks that messages can be sent to the queue: connects if need be, authorises, attaches a sending link
    /// and closes it again. Sends no message.
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

    /// Checks that messages can be received from the queue: as [`Client::probe`], with a receiving link that
    /// is given no credit, so that the broker hands out nothing.
    ///
    /// # Errors
    ///
    /// The first failure, within the time-outs for connect, request and attach.
    pub async fn probe_receiving(&self, queue: &str) -> Result<(), Error> {
        let timeouts = &self.shared.settings.timeouts;
        let deadline = Instant::now() + timeouts.connect;
        let link = receiver::Link::attach(&self.shared, queue, Some(deadline)).await?;
        link.close(timeouts.close).await;
        Ok(())
    }

    /// Looks at messages of the queue and leaves them where they are, locked ones and scheduled ones too: at
    /// most `count`, from this sequence number on (0: from the first), in order. The broker may give fewer than
    /// there are; none says that there is no more. `orders/$DeadLetterQueue` works as well.
    ///
    /// # Errors
    ///
    /// [`Error::Receive`], after tries within [`crate::Timeouts::request`].
    pub async fn peek(&self, queue: &str, from: i64, count: u16) -> Result<Vec<Peeked>, Error> {
        let management = Management::new(Arc::clone(&self.shared), queue.into());
        let failed = |source| Error::Receive {
            entity: queue.to_owned(),
            source,
        };
        let peeked = management.peek(from, count.into()).await.map_err(failed);
        management.close().await;
        peeked?
            .iter()
            .map(|message| decode::peeked(message).map_err(failed))
            .collect()
    }

    /// How the client was set up.
    pub(crate) fn settings(&self) -> &Settings {
        &self.shared.settings
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
