//! Handing messages out and hearing what became of them.

use serde_amqp::Value;
use uuid::Uuid;

use crate::message::Map;

const DEAD_LETTER_REASON: &str = "DeadLetterReason";
const DEAD_LETTER_DESCRIPTION: &str = "DeadLetterErrorDescription";

/// A message on its way to a receiver.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// Its number.
    pub sequence: i64,
    /// The lock token; in receive-and-delete mode only a delivery tag.
    pub token: Uuid,
    /// The message, encoded and stamped.
    pub payload: Vec<u8>,
}

/// How a receiver takes messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiveMode {
    /// Locked until settled.
    PeekLock,
    /// Gone at once.
    ReceiveAndDelete,
}

/// What becomes of a locked message.
#[derive(Debug, Clone, PartialEq)]
pub enum Settlement {
    /// It is done with.
    Complete,
    /// Back to its place, one failed delivery more.
    Abandon {
        /// Application properties to set.
        modify: Map,
    },
    /// Back to its place, as if it had not been delivered.
    Release,
    /// Put aside.
    Defer {
        /// Application properties to set.
        modify: Map,
    },
    /// To the dead-letter sub-queue.
    DeadLetter {
        /// Application properties to set, reason and description among them.
        modify: Map,
    },
}

impl Settlement {
    /// Dead-lettering with the customary properties.
    pub fn dead_letter(reason: Option<&str>, description: Option<&str>, mut modify: Map) -> Self {
        if let Some(reason) = reason {
            modify.insert(Value::from(DEAD_LETTER_REASON), Value::from(reason));
        }
        if let Some(description) = description {
            modify.insert(Value::from(DEAD_LETTER_DESCRIPTION), Value::from(description));
        }
        Self::DeadLetter { modify }
    }
}

/// The properties of a dead letter that the broker itself made.
pub(super) fn reasons(reason: &str, description: &str) -> Map {
    [
        (DEAD_LETTER_REASON, reason),
        (DEAD_LETTER_DESCRIPTION, description),
    ]
    .into_iter()
    .map(|(key, value)| (Value::from(key), Value::from(value)))
    .collect()
}
