//! Errors for clients.

use crate::{
    codec,
    queue::{self, QueueName},
};

/// An error for a client, as AMQP condition and text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{condition}: {description}")]
pub struct Refusal {
    /// The AMQP condition.
    pub condition: String,
    /// The text.
    pub description: String,
}

impl Refusal {
    /// An error with this condition and text.
    pub fn new(condition: &str, description: impl Into<String>) -> Self {
        Self {
            condition: condition.to_owned(),
            description: description.into(),
        }
    }

    /// There is no such queue.
    pub fn queue_not_found(queue: &QueueName) -> Self {
        Self::new(
            "amqp:not-found",
            format!("The messaging entity '{queue}' could not be found."),
        )
    }

    /// A message that is not AMQP.
    pub fn malformed(error: &codec::Error) -> Self {
        Self::new(
            "amqp:decode-error",
            format!("The message is not valid AMQP: {error}."),
        )
    }
}

impl From<queue::Error> for Refusal {
    fn from(error: queue::Error) -> Self {
        let condition = match error {
            queue::Error::LockLost => "com.microsoft:message-lock-lost",
            queue::Error::NotFound(_) => "com.microsoft:message-not-found",
            queue::Error::Encode(_) => "amqp:internal-error",
        };
        Self::new(condition, error.to_string())
    }
}
