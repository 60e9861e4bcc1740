//! Between the pump and [`crate::Receiver::recv`]: what was fetched, and why nothing more comes.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::error::Error;
use crate::message::Received;

/// Fetched messages that were not handed out yet. The number of places bounds it, not this type.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    content: Mutex<Content>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Content {
    messages: VecDeque<Received>,
    /// The latest failure to attach that does not pass by itself; told once.
    refusal: Option<Error>,
    closed: bool,
}

impl Inbox {
    /// The next message, or the latest refusal, or [`Error::Closed`]. Cancel safe.
    pub(crate) async fn next(&self) -> Result<Received, Error> {
        loop {
            let changed = self.changed.notified();
            {
                let mut content = self.content();
                if content.closed {
                    return Err(Error::Closed);
                }
                if let Some(message) = content.messages.pop_front() {
                    return Ok(message);
                }
                if let Some(error) = content.refusal.take() {
                    return Err(error);
                }
            }
            changed.await;
        }
    }

    /// Takes a message in. Tells whether somebody may still be handed it.
    pub(crate) fn put(&self, message: Received) -> bool {
        let mut content = self.content();
        if content.closed {
            return false;
        }
        content.messages.push_back(message);
        drop(content);
        self.changed.notify_one();
        true
    }

    pub(crate) fn refuse(&self, error: Error) {
        self.content().refusal = Some(error);
        self.changed.notify_one();
    }

    /// The link is attached: an earlier refusal no longer holds.
    pub(crate) fn clear_refusal(&self) {
        self.content().refusal = None;
    }

    /// From now on nobody is handed anything. Returns what was fetched.
    pub(crate) fn close(&self) -> VecDeque<Received> {
        let mut content = self.content();
        content.closed = true;
        let left = std::mem::take(&mut content.messages);
        drop(content);
        self.changed.notify_waiters();
        left
    }

    /// Each holder makes one change at a time, so the content is whole even after a panic.
    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
