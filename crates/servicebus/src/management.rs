//! A queue's `$management` node: settlement and lock renewal with an answer.
//!
//! The AMQP library settles on the link without waiting for the broker's answer: completing a message whose
//! lock ran out looks like success. So every settlement is asked for here, by lock token, which also works
//! after the link that delivered the message is gone.
//!
//! <https://learn.microsoft.com/azure/service-bus-messaging/service-bus-amqp-request-response>

use std::sync::Arc;

use fe2o3_amqp_types::primitives::{Array, OrderedMap, SimpleValue, Uuid as AmqpUuid, Value};
use jiff::Timestamp;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use crate::error::{Cause, Recovery};
use crate::request::{Request, Requester};
use crate::supervisor::Shared;

/// What becomes of a message.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Disposition<'a> {
    Complete,
    Abandon,
    DeadLetter { reason: &'a str, description: &'a str },
}

impl Disposition<'_> {
    /// The verb, for errors.
    pub(crate) fn verb(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Abandon => "abandon",
            Self::DeadLetter { .. } => "dead-letter",
        }
    }

    fn status(self) -> &'static str {
        match self {
            Self::Complete => "completed",
            Self::Abandon => "abandoned",
            Self::DeadLetter { .. } => "suspended",
        }
    }
}

/// Asks one queue's `$management`.
#[derive(Debug)]
pub(crate) struct Management {
    shared: Arc<Shared>,
    queue: Arc<str>,
    requester: Requester,
}

impl Management {
    pub(crate) fn new(shared: Arc<Shared>, queue: Arc<str>) -> Self {
        Self {
            requester: Requester::new(format!("{queue}/$management")),
            shared,
            queue,
        }
    }

    pub(crate) async fn settle(&self, lock_token: Uuid, disposition: Disposition<'_>) -> Result<(), Cause> {
        let mut body = vec![
            (
                "disposition-status",
                Value::String(disposition.status().to_owned()),
            ),
            ("lock-tokens", lock_tokens(lock_token)),
        ];
        if let Disposition::DeadLetter { reason, description } = disposition {
            body.push(("deadletter-reason", Value::String(reason.to_owned())));
            body.push(("deadletter-description", Value::String(description.to_owned())));
        }
        self.ask("com.microsoft:update-disposition", body).await.map(drop)
    }

    pub(crate) async fn renew_lock(&self, lock_token: Uuid) -> Result<Timestamp, Cause> {
        let body = vec![("lock-tokens", lock_tokens(lock_token))];
        let answer = self.ask("com.microsoft:renew-lock", body).await?;
        expiration(answer)
            .ok_or_else(|| Cause::Protocol("the answer to renew-lock has no expiration".to_owned()))
    }

    /// At most `count` encoded messages from this sequence number on, in order. They may be fewer than there
    /// are; none says that there is no more.
    pub(crate) async fn peek(&self, from: i64, count: i32) -> Result<Vec<Vec<u8>>, Cause> {
        let body = vec![
            ("from-sequence-number", Value::Long(from)),
            ("message-count", Value::Int(count)),
        ];
        let answer = self.ask("com.microsoft:peek-message", body).await?;
        peeked(answer)
            .ok_or_else(|| Cause::Protocol("the answer to peek-message is no list of messages".to_owned()))
    }

    /// Asks, and asks again after failures that pass, within [`crate::Timeouts::request`].
    async fn ask(&self, operation: &'static str, body: Vec<(&str, Value)>) -> Result<Value, Cause> {
        let body = body
            .into_iter()
            .map(|(name, value)| (Value::String(name.to_owned()), value));
        let body = Value::Map(body.collect::<OrderedMap<_, _>>());
        let settings = &self.shared.settings;
        let deadline = Instant::now() + settings.timeouts.request;
        let mut failures = 0;
        loop {
            let attempt = self.attempt(operation, body.clone(), deadline);
            let answer = timeout_at(deadline, attempt).await;
            let cause = match answer.unwrap_or(Err(Cause::TimedOut(settings.timeouts.request))) {
                Ok(answer) => return Ok(answer),
                Err(cause) => cause,
            };
            failures += 1;
            let pause = settings.pause(failures, Some(&cause));
            if cause.recovery() == Recovery::Never || Instant::now() + pause >= deadline {
                return Err(cause);
            }
            tracing::debug!(operation, %cause, "asking again");
            sleep(pause).await;
        }
    }

    async fn attempt(&self, operation: &'static str, body: Value, deadline: Instant) -> Result<Value, Cause> {
        let connection = self.shared.connection(Some(deadline)).await?;
        connection.authorise(&self.queue).await?;
        let allowed = deadline.saturating_duration_since(Instant::now());
        let server_timeout = u32::try_from(allowed.as_millis()).unwrap_or(u32::MAX);
        let request = Request {
            operation,
            properties: vec![("com.microsoft:server-timeout", SimpleValue::Uint(server_timeout))],
            body,
        };
        self.requester.call(&connection, request, allowed).await
    }

    pub(crate) async fn close(&self) {
        self.requester.close().await;
    }
}

/// `$management` carries lock tokens as UUIDs in network byte order, unlike delivery tags.
fn lock_tokens(token: Uuid) -> Value {
    Value::Array(Array::from(vec![Value::Uuid(AmqpUuid::from(token.into_bytes()))]))
}

fn peeked(answer: Value) -> Option<Vec<Vec<u8>>> {
    let mut answer = match answer {
        // 204: there is no such message
        Value::Null => return Some(Vec::new()),
        Value::Map(answer) => answer,
        _ => return None,
    };
    let messages = match answer.swap_remove(&Value::String("messages".to_owned())) {
        None => return Some(Vec::new()),
        Some(Value::List(messages)) => messages,
        Some(Value::Array(messages)) => messages.into_inner(),
        Some(_) => return None,
    };
    let encoded = messages.into_iter().map(|message| match message {
        Value::Map(mut message) => match message.swap_remove(&Value::String("message".to_owned())) {
            Some(Value::Binary(bytes)) => Some(bytes.into_vec()),
            _ => None,
        },
        _ => None,
    });
    encoded.collect()
}

fn expiration(answer: Value) -> Option<Timestamp> {
    let Value::Map(mut answer) = answer else {
        return None;
    };
    let expirations = match answer.swap_remove(&Value::String("expirations".to_owned()))? {
        Value::Array(values) => values.into_inner(),
        Value::List(values) => values,
        single => vec![single],
    };
    match expirations.first()? {
        Value::Timestamp(at) => Timestamp::from_millisecond(at.milliseconds()).ok(),
        _ => None,
    }
}
