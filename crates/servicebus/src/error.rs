//! What can go wrong, and what to do about it.
//!
//! [`Error`] names the operation that failed, [`Cause`] what went wrong, and [`Recovery`] what has to be
//! rebuilt before the same thing is worth another try. The table follows the Go SDK
//! (`internal/errors.go` of azservicebus) and the AMQP 1.0 specification, sections 2.8.14 to 2.8.18.

use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How long to leave a broker alone that answered `com.microsoft:server-busy`.
///
/// <https://learn.microsoft.com/azure/service-bus-messaging/service-bus-throttling>: "wait 10 seconds".
pub const BUSY_PAUSE: Duration = Duration::from_secs(10);

/// An operation of the client that failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The TCP or TLS connection could not be made.
    #[error("failed to connect to {address}")]
    Connect {
        /// Host and port.
        address: String,
        /// Why.
        source: Cause,
    },
    /// The SASL or AMQP open exchange failed.
    #[error("failed to open an AMQP connection to {address}")]
    Open {
        /// Host and port.
        address: String,
        /// Why.
        source: Cause,
    },
    /// An established connection ended.
    #[error("lost the AMQP connection")]
    Connection {
        /// Why.
        source: Cause,
    },
    /// An AMQP session could not be begun.
    #[error("failed to begin an AMQP session")]
    BeginSession {
        /// Why.
        source: Cause,
    },
    /// The token credential gave no token.
    #[error("failed to get an access token")]
    GetToken {
        /// Why.
        source: Cause,
    },
    /// The broker did not take the token for an entity.
    #[error("failed to authorise for {entity}")]
    Authorise {
        /// The queue.
        entity: String,
        /// Why.
        source: Cause,
    },
    /// A link could not be attached.
    #[error("failed to attach a link to {entity}")]
    Attach {
        /// The queue, or one of its sub-nodes.
        entity: String,
        /// Why.
        source: Cause,
    },
    /// A message was not sent, or its outcome is unknown.
    #[error("failed to send to {entity}")]
    Send {
        /// The queue.
        entity: String,
        /// Why.
        source: Cause,
    },
    /// A message is larger than the queue takes; only this message is affected.
    #[error("the message is {bytes} bytes long, the queue takes at most {limit}")]
    MessageTooLarge {
        /// The encoded size of the message.
        bytes: u64,
        /// The limit of the link.
        limit: u64,
    },
    /// A message could not be encoded.
    #[error("failed to encode message {message_id}")]
    Encode {
        /// Its id.
        message_id: String,
        /// Why.
        source: Cause,
    },
    /// Receiving from a queue failed.
    #[error("failed to receive from {entity}")]
    Receive {
        /// The queue.
        entity: String,
        /// Why.
        source: Cause,
    },
    /// A message could not be completed, abandoned or dead-lettered.
    #[error("failed to {disposition} message {message_id}")]
    Settle {
        /// "complete", "abandon" or "dead-letter".
        disposition: &'static str,
        /// The message's id, empty when it has none.
        message_id: String,
        /// Why.
        source: Cause,
    },
    /// A lock could not be renewed.
    #[error("failed to renew the lock of message {message_id}")]
    RenewLock {
        /// The message's id, empty when it has none.
        message_id: String,
        /// Why.
        source: Cause,
    },
    /// The client was closed by its owner.
    #[error("the client is closed")]
    Closed,
}

/// What went wrong.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Cause {
    /// The broker said so, by an AMQP error condition.
    #[error("{condition}: {description}")]
    Broker {
        /// The condition.
        condition: Condition,
        /// The broker's words.
        description: String,
    },
    /// The broker answered a request (`$cbs`, `$management`) with a failure.
    #[error("the broker answered {status}: {description}")]
    Status {
        /// An HTTP-like status code.
        status: u16,
        /// The condition, when the answer has one.
        condition: Option<Condition>,
        /// The broker's words.
        description: String,
    },
    /// The broker handed a message back without a reason.
    #[error("the broker handed the message back ({0})")]
    HandedBack(&'static str),
    /// Nothing came within the time allowed.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The operating system or TLS reported a failure.
    #[error("input/output error")]
    Io(#[source] Arc<io::Error>),
    /// The peer sent nothing for the whole idle time-out.
    #[error("the peer fell silent")]
    PeerSilent,
    /// The link ended without an error.
    #[error("the link was detached")]
    Detached,
    /// The session ended without an error.
    #[error("the session ended")]
    SessionEnded,
    /// The connection ended without an error.
    #[error("the connection ended")]
    Disconnected,
    /// The broker refused the SASL mechanism or identity.
    #[error("SASL was refused: {0}")]
    Sasl(String),
    /// TLS cannot be set up on this machine.
    #[error("TLS is not available: {0}")]
    Tls(String),
    /// The peer broke the protocol, or the AMQP library got into a state that it cannot explain.
    #[error("protocol error: {0}")]
    Protocol(String),
    /// The token credential failed.
    #[error("the credential failed")]
    Credential(#[source] Arc<azure_core::Error>),
    /// Another operation, on which this one depends, failed.
    #[error(transparent)]
    Because(Arc<Error>),
}

/// An AMQP error condition, such as `amqp:not-found`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Condition(String);

impl Condition {
    /// A queue that does not exist.
    pub const NOT_FOUND: &str = "amqp:not-found";
    /// A missing, wrong or expired token, or one without the right.
    pub const UNAUTHORIZED_ACCESS: &str = "amqp:unauthorized-access";
    /// The broker asks for a pause.
    pub const SERVER_BUSY: &str = "com.microsoft:server-busy";
    /// The lock ran out, or the message is settled already.
    pub const MESSAGE_LOCK_LOST: &str = "com.microsoft:message-lock-lost";
    /// The broker ends a link; for an idle one after ten minutes.
    pub const DETACH_FORCED: &str = "amqp:link:detach-forced";

    /// Takes a condition's symbol as it stands on the wire.
    pub fn new(symbol: impl Into<String>) -> Self {
        Self(symbol.into())
    }

    /// The symbol.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What must happen before the failed operation is worth another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// The link is still good: pause, then try again on it.
    Wait,
    /// Attach a new link on a new session of the same connection.
    NewLink,
    /// Open a new connection.
    NewConnection,
    /// Trying again brings the same answer until a person changes something.
    Never,
}

impl Cause {
    /// What must be rebuilt before another try; a pure function of the cause.
    pub fn recovery(&self) -> Recovery {
        match self {
            Self::Broker { condition, .. } => by_condition(condition.as_str()),
            Self::Status {
                status, condition, ..
            } => match condition {
                Some(condition) if *status != 401 && *status != 404 && *status != 410 => {
                    by_condition(condition.as_str())
                }
                _ => by_status(*status),
            },
            Self::HandedBack(_) | Self::TimedOut(_) | Self::Credential(_) => Recovery::Wait,
            Self::Detached | Self::SessionEnded => Recovery::NewLink,
            Self::Io(_) | Self::PeerSilent | Self::Disconnected | Self::Protocol(_) => {
                Recovery::NewConnection
            }
            Self::Sasl(_) | Self::Tls(_) => Recovery::Never,
            Self::Because(error) => error.recovery(),
        }
    }

    /// Whether the client was closed meanwhile.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self, Self::Because(error) if matches!(**error, Error::Closed))
    }

    /// Whether the broker asks for a pause.
    pub(crate) fn is_busy(&self) -> bool {
        self.is(Condition::SERVER_BUSY)
    }

    fn is(&self, condition: &str) -> bool {
        self.condition().is_some_and(|given| given.as_str() == condition)
    }

    /// The AMQP condition that the broker gave, when it gave one.
    pub fn condition(&self) -> Option<&Condition> {
        match self.root() {
            Self::Broker { condition, .. } => Some(condition),
            Self::Status { condition, .. } => condition.as_ref(),
            _ => None,
        }
    }

    /// The cause at the bottom, where other operations failed first.
    fn root(&self) -> &Self {
        match self {
            Self::Because(error) => error.cause().map_or(self, Self::root),
            _ => self,
        }
    }
}

fn by_condition(condition: &str) -> Recovery {
    match condition {
        Condition::SERVER_BUSY | "com.microsoft:timeout" | "com.microsoft:operation-cancelled" => {
            Recovery::Wait
        }
        "amqp:connection:forced" | "amqp:connection:framing-error" | "amqp:internal-error" => {
            Recovery::NewConnection
        }
        Condition::NOT_FOUND
        | Condition::UNAUTHORIZED_ACCESS
        | Condition::MESSAGE_LOCK_LOST
        | "amqp:not-allowed"
        | "amqp:not-implemented"
        | "amqp:link:message-size-exceeded"
        | "amqp:resource-limit-exceeded"
        | "com.microsoft:argument-error"
        | "com.microsoft:entity-disabled"
        | "com.microsoft:message-not-found" => Recovery::Never,
        link if link.starts_with("amqp:link:") || link.starts_with("amqp:session:") => Recovery::NewLink,
        _ => Recovery::NewConnection,
    }
}

fn by_status(status: u16) -> Recovery {
    match status {
        408 | 429 | 500 | 503 => Recovery::Wait,
        _ => Recovery::Never,
    }
}

impl Error {
    /// What must be rebuilt before another try.
    pub fn recovery(&self) -> Recovery {
        match self {
            // The same bytes fail the same way.
            Self::MessageTooLarge { .. } | Self::Encode { .. } | Self::Closed => Recovery::Never,
            _ => self.cause().map_or(Recovery::Never, Cause::recovery),
        }
    }

    /// What went wrong, when that is more than the error says itself.
    pub fn cause(&self) -> Option<&Cause> {
        match self {
            Self::MessageTooLarge { .. } | Self::Closed => None,
            Self::Connect { source, .. }
            | Self::Open { source, .. }
            | Self::Connection { source }
            | Self::BeginSession { source }
            | Self::GetToken { source }
            | Self::Authorise { source, .. }
            | Self::Attach { source, .. }
            | Self::Send { source, .. }
            | Self::Encode { source, .. }
            | Self::Receive { source, .. }
            | Self::Settle { source, .. }
            | Self::RenewLock { source, .. } => Some(source),
        }
    }

    /// Whether the same operation may succeed later without anybody changing anything.
    pub fn is_retriable(&self) -> bool {
        self.recovery() != Recovery::Never
    }

    /// How long the broker wants to be left alone, when it said so.
    pub fn retry_after(&self) -> Option<Duration> {
        self.cause().is_some_and(Cause::is_busy).then_some(BUSY_PAUSE)
    }

    /// Whether a message's lock ran out (or the message was settled before): the broker has given it, or
    /// will give it, to somebody again.
    pub fn is_lock_lost(&self) -> bool {
        match self {
            Self::Settle { source, .. } | Self::RenewLock { source, .. } => {
                matches!(source, Cause::Status { status: 410, .. }) || source.is(Condition::MESSAGE_LOCK_LOST)
            }
            _ => false,
        }
    }

    /// Whether there is no such queue. The broker says so when a token is put for it, or when a link attaches.
    pub fn is_not_found(&self) -> bool {
        self.cause().is_some_and(|cause| {
            cause.is(Condition::NOT_FOUND) || matches!(cause.root(), Cause::Status { status: 404, .. })
        })
    }

    /// Whether an attach was refused for want of a valid token.
    pub(crate) fn is_unauthorised(&self) -> bool {
        self.cause()
            .is_some_and(|cause| cause.is(Condition::UNAUTHORIZED_ACCESS))
    }

    /// The AMQP condition that the broker gave, when it gave one.
    pub fn condition(&self) -> Option<&Condition> {
        self.cause().and_then(Cause::condition)
    }

    /// One word for the failed operation, for metric labels and log fields.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "Connect",
            Self::Open { .. } => "Open",
            Self::Connection { .. } => "Connection",
            Self::BeginSession { .. } => "BeginSession",
            Self::GetToken { .. } => "GetToken",
            Self::Authorise { .. } => "Authorise",
            Self::Attach { .. } => "Attach",
            Self::Send { .. } => "Send",
            Self::MessageTooLarge { .. } => "MessageTooLarge",
            Self::Encode { .. } => "Encode",
            Self::Receive { .. } => "Receive",
            Self::Settle { .. } => "Settle",
            Self::RenewLock { .. } => "RenewLock",
            Self::Closed => "Closed",
        }
    }
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

impl From<Error> for Cause {
    fn from(error: Error) -> Self {
        Self::Because(Arc::new(error))
    }
}

/// An error and its causes in one line, for logs and database columns.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn broker(condition: &str) -> Cause {
        Cause::Broker {
            condition: Condition::new(condition),
            description: "words".into(),
        }
    }

    fn status(status: u16, condition: Option<&str>) -> Cause {
        Cause::Status {
            status,
            condition: condition.map(Condition::new),
            description: "words".into(),
        }
    }

    #[rstest]
    // The Go SDK's table (internal/errors.go).
    #[case("com.microsoft:server-busy", Recovery::Wait)]
    #[case("com.microsoft:timeout", Recovery::Wait)]
    #[case("com.microsoft:operation-cancelled", Recovery::Wait)]
    #[case("amqp:link:detach-forced", Recovery::NewLink)]
    #[case("amqp:link:transfer-limit-exceeded", Recovery::NewLink)]
    #[case("amqp:connection:forced", Recovery::NewConnection)]
    #[case("amqp:internal-error", Recovery::NewConnection)]
    #[case("amqp:not-found", Recovery::Never)]
    #[case("amqp:unauthorized-access", Recovery::Never)]
    #[case("amqp:not-allowed", Recovery::Never)]
    #[case("amqp:link:message-size-exceeded", Recovery::Never)]
    #[case("amqp:resource-limit-exceeded", Recovery::Never)]
    #[case("com.microsoft:message-lock-lost", Recovery::Never)]
    #[case("com.microsoft:entity-disabled", Recovery::Never)]
    // AMQP 1.0, sections 2.8.14 to 2.8.18.
    #[case("amqp:not-implemented", Recovery::Never)]
    #[case("amqp:connection:framing-error", Recovery::NewConnection)]
    #[case("amqp:connection:redirect", Recovery::NewConnection)]
    #[case("amqp:session:window-violation", Recovery::NewLink)]
    #[case("amqp:session:errant-link", Recovery::NewLink)]
    #[case("amqp:link:stolen", Recovery::NewLink)]
    #[case("amqp:link:redirect", Recovery::NewLink)]
    // Whatever comes next.
    #[case("com.microsoft:something-new", Recovery::NewConnection)]
    fn condition_tells_what_to_rebuild(#[case] condition: &str, #[case] expected: Recovery) {
        assert_eq!(broker(condition).recovery(), expected);
    }

    #[rstest]
    #[case(401, None, Recovery::Never)]
    #[case(404, None, Recovery::Never)]
    #[case(410, None, Recovery::Never)]
    #[case(410, Some("com.microsoft:message-lock-lost"), Recovery::Never)]
    #[case(400, Some("com.microsoft:argument-error"), Recovery::Never)]
    #[case(400, None, Recovery::Never)]
    #[case(408, None, Recovery::Wait)]
    #[case(408, Some("com.microsoft:timeout"), Recovery::Wait)]
    #[case(429, None, Recovery::Wait)]
    #[case(500, None, Recovery::Wait)]
    #[case(503, None, Recovery::Wait)]
    #[case(503, Some("com.microsoft:server-busy"), Recovery::Wait)]
    #[case(401, Some("com.microsoft:timeout"), Recovery::Never)]
    fn status_tells_what_to_rebuild(
        #[case] code: u16,
        #[case] condition: Option<&str>,
        #[case] expected: Recovery,
    ) {
        assert_eq!(status(code, condition).recovery(), expected);
    }

    #[rstest]
    #[case::refused(io::Error::from(io::ErrorKind::ConnectionRefused).into(), Recovery::NewConnection)]
    #[case::end_of_file(io::Error::from(io::ErrorKind::UnexpectedEof).into(), Recovery::NewConnection)]
    #[case::silent(Cause::PeerSilent, Recovery::NewConnection)]
    #[case::disconnected(Cause::Disconnected, Recovery::NewConnection)]
    #[case::detached(Cause::Detached, Recovery::NewLink)]
    #[case::session_ended(Cause::SessionEnded, Recovery::NewLink)]
    #[case::timed_out(Cause::TimedOut(Duration::from_secs(1)), Recovery::Wait)]
    #[case::handed_back(Cause::HandedBack("released"), Recovery::Wait)]
    #[case::sasl(Cause::Sasl("Auth".into()), Recovery::Never)]
    #[case::tls(Cause::Tls("bad certificate".into()), Recovery::Never)]
    #[case::nested(Error::BeginSession { source: Cause::Detached }.into(), Recovery::NewLink)]
    #[case::closed(Error::Closed.into(), Recovery::Never)]
    fn cause_tells_what_to_rebuild(#[case] cause: Cause, #[case] expected: Recovery) {
        assert_eq!(cause.recovery(), expected);
    }

    #[rstest]
    #[case::link(broker(Condition::MESSAGE_LOCK_LOST), true)]
    #[case::management(status(410, None), true)]
    #[case::management_condition(status(400, Some(Condition::MESSAGE_LOCK_LOST)), true)]
    #[case::other(status(404, None), false)]
    #[case::connection(Cause::Disconnected, false)]
    fn lost_lock_is_told_from_other_failures(#[case] source: Cause, #[case] expected: bool) {
        let error = Error::Settle {
            disposition: "complete",
            message_id: "m".into(),
            source,
        };

        assert_eq!(error.is_lock_lost(), expected);
    }

    #[rstest]
    #[case::attach(broker(Condition::NOT_FOUND), true)]
    #[case::put_token(status(404, None), true)]
    #[case::unauthorised(status(401, None), false)]
    fn missing_queue_is_told_from_other_failures(#[case] source: Cause, #[case] expected: bool) {
        let error = Error::Attach {
            entity: "queue".into(),
            source,
        };

        assert_eq!(error.is_not_found(), expected);
    }

    #[rstest]
    #[case(Condition::SERVER_BUSY, Some(BUSY_PAUSE))]
    #[case("com.microsoft:timeout", None)]
    fn only_a_busy_broker_asks_for_a_pause(#[case] condition: &str, #[case] expected: Option<Duration>) {
        let error = Error::Send {
            entity: "queue".into(),
            source: broker(condition),
        };

        assert_eq!(error.retry_after(), expected);
    }

    #[test]
    fn chain_names_every_cause_once() {
        let error = Error::Attach {
            entity: "queue".into(),
            source: Error::BeginSession {
                source: broker("amqp:not-allowed"),
            }
            .into(),
        };

        assert_eq!(
            chain(&error),
            "failed to attach a link to queue: failed to begin an AMQP session: amqp:not-allowed: words"
        );
    }
}
