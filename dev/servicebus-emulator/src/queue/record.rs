//! What is known about a message beside its content, and what of that must outlive the process.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Part;
use crate::{clock::Moment, message::Message};

/// What the queue knows about a message beside its content. This is what the store keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When it became available; for a scheduled one, when it was handed in.
    pub enqueued: Moment,
    /// Failed deliveries so far.
    pub delivery_count: u32,
    /// Whether receivers get it.
    pub state: State,
    /// When its time to live ends.
    pub expires: Option<Moment>,
    /// Its number before it was dead-lettered.
    pub enqueue_sequence: Option<i64>,
    /// The queue that it was dead-lettered from.
    pub dead_letter_source: Option<String>,
}

/// Whether receivers get a message. A lock is not a state of its own: it is lost when the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// In its place in the queue.
    Active,
    /// Put aside; only receive-by-sequence-number finds it.
    Deferred,
    /// Not yet in the queue.
    Scheduled {
        /// When it appears.
        at: Moment,
    },
}

/// Something that must outlive the process.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A message came in, or its content changed.
    Content {
        /// In which part of the queue.
        part: Part,
        /// Its number there.
        sequence: i64,
        /// All of it.
        message: Arc<Message>,
    },
    /// What is known about a message changed.
    Record {
        /// In which part of the queue.
        part: Part,
        /// Its number there.
        sequence: i64,
        /// All of it.
        record: Record,
    },
    /// A message left.
    Removed {
        /// From which part of the queue.
        part: Part,
        /// Its number there.
        sequence: i64,
    },
    /// The next message gets this number.
    NextSequence(i64),
    /// Duplicate detection remembers this message-id.
    Remembered {
        /// When it came in.
        at: Moment,
        /// The message-id.
        id: String,
    },
    /// Duplicate detection forgets this message-id.
    Forgotten {
        /// When it had come in.
        at: Moment,
        /// The message-id.
        id: String,
    },
}
