//! Messages as applications see them.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use uuid::Uuid;

use crate::receiver::Held;

/// A message to send.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outgoing {
    /// Identifies the message; a queue with duplicate detection keeps the first of those that are equal.
    pub message_id: String,
    /// The payload.
    pub body: Bytes,
    /// The payload's media type, such as `application/json`.
    pub content_type: Option<String>,
    /// What the message is about.
    pub subject: Option<String>,
    /// Relates the message to something else.
    pub correlation_id: Option<String>,
    /// The sender's own named values.
    pub application_properties: BTreeMap<String, Property>,
}

/// A message that was looked at and left where it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Peeked {
    /// The broker's number for the message within its queue.
    pub sequence_number: i64,
    /// The sender's id, or the broker's when the sender gave none.
    pub message_id: String,
    /// The payload: the data sections joined, or the text or bytes of a value body.
    pub body: Bytes,
    /// The payload's media type.
    pub content_type: Option<String>,
    /// What the message is about.
    pub subject: Option<String>,
    /// Relates the message to something else.
    pub correlation_id: Option<String>,
    /// The sender's own named values, and what the broker added when it dead-lettered the message.
    pub application_properties: BTreeMap<String, Property>,
    /// How many earlier deliveries ended without completion.
    pub delivery_count: u32,
    /// When the broker took the message.
    pub enqueued_at: Option<Timestamp>,
}

impl Peeked {
    /// An application property that holds text.
    pub fn text(&self, name: &str) -> Option<&str> {
        text(&self.application_properties, name)
    }

    /// Why the message was dead-lettered; only on messages from a dead-letter queue.
    pub fn dead_letter_reason(&self) -> Option<&str> {
        self.text(DEAD_LETTER_REASON)
    }

    /// The longer words beside [`Peeked::dead_letter_reason`].
    pub fn dead_letter_description(&self) -> Option<&str> {
        self.text(DEAD_LETTER_DESCRIPTION)
    }
}

/// The application property in which the broker keeps why it dead-lettered a message.
pub const DEAD_LETTER_REASON: &str = "DeadLetterReason";
/// The application property with the longer words beside [`DEAD_LETTER_REASON`].
pub const DEAD_LETTER_DESCRIPTION: &str = "DeadLetterErrorDescription";

fn text<'a>(properties: &'a BTreeMap<String, Property>, name: &str) -> Option<&'a str> {
    match properties.get(name) {
        Some(Property::Text(text)) => Some(text),
        _ => None,
    }
}

/// A message that was received under a lock (peek-lock).
///
/// It occupies one of its receiver's places until it is dropped; dropping it without completing, abandoning
/// or dead-lettering it leaves it locked until the lock runs out.
#[derive(Debug)]
pub struct Received {
    /// The sender's id, or the broker's when the sender gave none.
    pub message_id: String,
    /// The payload: the data sections joined, or the text or bytes of a value body.
    pub body: Bytes,
    /// The payload's media type.
    pub content_type: Option<String>,
    /// What the message is about.
    pub subject: Option<String>,
    /// Relates the message to something else.
    pub correlation_id: Option<String>,
    /// The sender's own named values.
    pub application_properties: BTreeMap<String, Property>,
    /// How many earlier deliveries ended without completion; 0 for the first (as in the Python and JavaScript
    /// SDKs; .NET, Java and Go show one more).
    pub delivery_count: u32,
    /// The broker's number for the message within its queue.
    pub sequence_number: i64,
    /// When the broker took the message.
    pub enqueued_at: Option<Timestamp>,
    /// Names the lock.
    pub lock_token: Uuid,
    /// When the lock runs out, unless renewed; as known at delivery.
    pub locked_until: Timestamp,
    pub(crate) held: Held,
}

impl Received {
    /// An application property that holds text.
    pub fn text(&self, name: &str) -> Option<&str> {
        text(&self.application_properties, name)
    }

    /// Why the message was dead-lettered; only on messages from a dead-letter queue.
    pub fn dead_letter_reason(&self) -> Option<&str> {
        self.text(DEAD_LETTER_REASON)
    }

    /// The longer words beside [`Received::dead_letter_reason`].
    pub fn dead_letter_description(&self) -> Option<&str> {
        self.text(DEAD_LETTER_DESCRIPTION)
    }
}

/// The value of an application property.
#[derive(Debug, Clone, PartialEq)]
pub enum Property {
    /// A string (received symbols and characters as well).
    Text(String),
    /// Any integer; unsigned 64-bit values beyond `i64::MAX` are received as text.
    Integer(i64),
    /// A floating point number.
    Float(f64),
    /// A truth value.
    Boolean(bool),
    /// A point in time, in milliseconds.
    Timestamp(Timestamp),
    /// A UUID.
    Uuid(Uuid),
    /// Bytes.
    Binary(Bytes),
    /// A null, or a type that has no counterpart here.
    Null,
}

impl From<&str> for Property {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Property {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<i64> for Property {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<bool> for Property {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

impl From<Uuid> for Property {
    fn from(value: Uuid) -> Self {
        Self::Uuid(value)
    }
}
