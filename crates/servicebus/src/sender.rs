//! Sending: encoded in batches, confirmed by the broker one by one.

use std::num::NonZeroUsize;

use crate::error::Error;
use crate::message::Outgoing;

/// A sender to one queue, from [`crate::Client::sender`].
#[derive(Debug)]
pub struct Sender {}

/// How a [`Sender`] groups and repeats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SenderOptions {
    /// The most messages in one batch. A batch is taken or refused as a whole.
    pub batch_messages: NonZeroUsize,
    /// The most batches sent and not yet confirmed.
    pub in_flight: NonZeroUsize,
    /// How often messages that were certainly not stored are sent again within one call. Messages of unknown
    /// outcome never are.
    pub retries: u32,
}

impl Default for SenderOptions {
    /// 100 messages, 2 batches, 3 retries (the retries of the official SDKs).
    fn default() -> Self {
        Self {
            batch_messages: NonZeroUsize::MIN.saturating_add(99),
            in_flight: NonZeroUsize::MIN.saturating_add(1),
            retries: 3,
        }
    }
}

/// What became of one message.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The broker has stored it.
    Accepted,
    /// It was sent, and no answer came: the broker may or may not have stored it. Sending it again under the
    /// same message id is safe when duplicates are detected or harmless.
    Unknown(Error),
    /// The broker has not stored it; [`Error::is_retriable`] tells whether it may later.
    Refused(Error),
}

/// The outcomes of one [`Sender::send`], in the order of the messages.
#[derive(Debug)]
pub struct SendReport {
    /// One for each message.
    pub outcomes: Vec<Outcome>,
}

impl SendReport {
    /// Whether every message was accepted.
    pub fn all_accepted(&self) -> bool {
        self.outcomes
            .iter()
            .all(|outcome| matches!(outcome, Outcome::Accepted))
    }

    /// The first outcome that is not [`Outcome::Accepted`], with its message's place.
    pub fn first_failure(&self) -> Option<(usize, &Error)> {
        self.outcomes
            .iter()
            .enumerate()
            .find_map(|(place, outcome)| match outcome {
                Outcome::Accepted => None,
                Outcome::Unknown(error) | Outcome::Refused(error) => Some((place, error)),
            })
    }
}

impl Sender {
    /// Sends messages and reports what became of each, within [`crate::Timeouts::send`]. Never hangs when
    /// the peer dies: what was under way is then [`Outcome::Unknown`].
    ///
    /// Calls on one sender run one after the other. A single message goes as it is, several as batches.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, what became of its messages is unknown; the sender stays usable.
    pub async fn send(&self, messages: Vec<Outgoing>) -> SendReport {
        SendReport {
            outcomes: messages.iter().map(|_| Outcome::Refused(Error::Closed)).collect(),
        }
    }

    /// Closes the link. A later send attaches anew.
    pub async fn close(&self) {}
}
