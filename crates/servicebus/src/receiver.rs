//! Receiving under locks, and settling.

mod inbox;
mod pump;

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::Error;
use crate::management::{Disposition, Management};
use crate::message::Received;
use crate::receiver::inbox::Inbox;
pub(crate) use crate::receiver::pump::Held;
pub(crate) use crate::receiver::pump::Link;
use crate::receiver::pump::{Notice, Pump};
use crate::supervisor::Shared;

/// A receiver from one queue, from [`crate::Client::receiver`].
///
/// All methods take `&self`, so that messages can be settled while another task waits for the next. Dropping
/// it gives fetched messages that were not handed out back to the queue.
#[derive(Debug)]
pub struct Receiver {
    shared: Arc<Shared>,
    queue: Arc<str>,
    management: Management,
    inbox: Arc<Inbox>,
    notices: mpsc::UnboundedSender<Notice>,
    stop: CancellationToken,
    /// The pump alone.
    task: TaskTracker,
}

impl Receiver {
    pub(crate) fn start(shared: Arc<Shared>, queue: &str, credit: u32) -> Self {
        let queue: Arc<str> = queue.into();
        let (notices, incoming) = mpsc::unbounded_channel();
        let inbox = Arc::new(Inbox::default());
        let stop = shared.stop_links.child_token();
        let task = TaskTracker::new();
        let pump = Pump {
            shared: Arc::clone(&shared),
            queue: Arc::clone(&queue),
            limit: credit.max(1),
            inbox: Arc::clone(&inbox),
            notices: notices.clone(),
            incoming,
            stop: stop.clone(),
            held: 0,
            generation: 0,
        };
        let running = task.track_future(pump.run());
        shared.links.spawn(running);
        task.close();
        Self {
            management: Management::new(Arc::clone(&shared), Arc::clone(&queue)),
            shared,
            queue,
            inbox,
            notices,
            stop,
            task,
        }
    }

    /// The queue's name, as it was given.
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// The next message; waits for as long as it takes, through any number of reconnections.
    ///
    /// # Errors
    ///
    /// Only those that do not pass by themselves ([`Error::is_retriable`] is false): no such queue, no right,
    /// a closed client. Each failed attempt is told once. Calling again is allowed; the receiver goes on
    /// trying.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no message is lost when the future is dropped.
    pub async fn recv(&self) -> Result<Received, Error> {
        self.inbox.next().await
    }

    /// Removes the message from the queue.
    ///
    /// # Errors
    ///
    /// [`Error::is_lock_lost`]: the message will come, or has come, again (or, when an earlier answer was
    /// lost, it was settled by that call). Retriable errors may be tried again while the lock lasts; within
    /// [`crate::Timeouts::request`] the call has done so itself.
    pub async fn complete(&self, message: &Received) -> Result<(), Error> {
        self.settle(message, Disposition::Complete).await
    }

    /// Gives the message back at once, its delivery count one higher.
    ///
    /// # Errors
    ///
    /// As for [`Receiver::complete`].
    pub async fn abandon(&self, message: &Received) -> Result<(), Error> {
        self.settle(message, Disposition::Abandon).await
    }

    /// Moves the message to the queue's dead-letter queue, with a short reason and a longer description.
    ///
    /// # Errors
    ///
    /// As for [`Receiver::complete`].
    pub async fn dead_letter(
        &self,
        message: &Received,
        reason: &str,
        description: &str,
    ) -> Result<(), Error> {
        self.settle(message, Disposition::DeadLetter { reason, description })
            .await
    }

    async fn settle(&self, message: &Received, disposition: Disposition<'_>) -> Result<(), Error> {
        match self.management.settle(message.lock_token, disposition).await {
            Ok(()) => {
                // A pump that is gone has no link whose books would need clearing.
                drop(self.notices.send(Notice::Release(message.held.delivery())));
                Ok(())
            }
            Err(source) if source.is_closed() => Err(Error::Closed),
            Err(source) => Err(Error::Settle {
                disposition: disposition.verb(),
                message_id: message.message_id.clone(),
                source,
            }),
        }
    }

    /// Extends the message's lock by the queue's lock duration from now, and tells until when.
    ///
    /// # Errors
    ///
    /// As for [`Receiver::complete`].
    pub async fn renew_lock(&self, message: &Received) -> Result<Timestamp, Error> {
        match self.management.renew_lock(message.lock_token).await {
            Ok(until) => Ok(until),
            Err(source) if source.is_closed() => Err(Error::Closed),
            Err(source) => Err(Error::RenewLock {
                message_id: message.message_id.clone(),
                source,
            }),
        }
    }

    /// Stops receiving and closes the links, within [`crate::Timeouts::close`]. Messages that were fetched
    /// and not handed out go back to the queue; those handed out stay locked until their lock runs out.
    pub async fn close(self) {
        let allowed = self.shared.settings.timeouts.close;
        let task = self.task.clone();
        self.management.close().await;
        drop(self);
        if timeout(allowed, task.wait()).await.is_err() {
            tracing::debug!("receiver not closed within the time allowed");
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
