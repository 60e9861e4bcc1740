//! Requests and replies over a pair of links, as `$cbs` and `$management` have them.
//!
//! `fe2o3-amqp-management` has such a client too, but takes the next reply for the answer without comparing
//! correlation ids: after one time-out every later call would read its predecessor's answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use fe2o3_amqp::link::delivery::Sendable;
use fe2o3_amqp::session::SessionHandle;
use fe2o3_amqp::{Receiver, Sender};
use fe2o3_amqp_types::messaging::{
    AmqpValue, ApplicationProperties, Body, Message, MessageId, Outcome, Properties,
};
use fe2o3_amqp_types::primitives::{SimpleValue, Value};
use tokio::sync::{Mutex, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::connection::Connection;
use crate::error::{Cause, Condition};

/// Sends requests to one node of the broker, attaching its links as needed.
#[derive(Debug)]
pub(crate) struct Requester {
    node: String,
    pair: Mutex<Option<Arc<Pair>>>,
}

/// A request's changing parts.
pub(crate) struct Request {
    pub operation: &'static str,
    pub properties: Vec<(&'static str, SimpleValue)>,
    pub body: Value,
}

impl Requester {
    pub(crate) fn new(node: impl Into<String>) -> Self {
        Self {
            node: node.into(),
            pair: Mutex::new(None),
        }
    }

    /// Sends a request over `connection` and waits for its answer's body, at most `allowed` for the links and
    /// as long again for the answer.
    ///
    /// After any failure but an answer, the links are dropped, so that the next call starts afresh.
    pub(crate) async fn call(
        &self,
        connection: &Arc<Connection>,
        request: Request,
        allowed: Duration,
    ) -> Result<Value, Cause> {
        let pair = self.pair(connection, allowed).await?;
        let answer = tokio::select! {
            answer = timeout(allowed, pair.call(request)) => {
                answer.unwrap_or(Err(Cause::TimedOut(allowed)))
            }
            () = connection.closed().cancelled() => Err(connection.end()),
        };
        if !matches!(answer, Ok(_) | Err(Cause::Status { .. })) {
            let mut current = self.pair.lock().await;
            if current
                .as_ref()
                .is_some_and(|current| Arc::ptr_eq(current, &pair))
            {
                *current = None;
            }
        }
        answer
    }

    async fn pair(&self, connection: &Arc<Connection>, allowed: Duration) -> Result<Arc<Pair>, Cause> {
        let mut current = self.pair.lock().await;
        if let Some(pair) = current.as_ref().filter(|pair| pair.is_usable(connection)) {
            return Ok(Arc::clone(pair));
        }
        let pair = timeout(allowed, Pair::attach(connection, &self.node))
            .await
            .unwrap_or(Err(Cause::TimedOut(allowed)))?;
        Ok(Arc::clone(current.insert(Arc::new(pair))))
    }

    /// Closes the links, if there are any.
    pub(crate) async fn close(&self) {
        drop(self.pair.lock().await.take());
    }
}

type Waiting = Arc<StdMutex<HashMap<String, oneshot::Sender<Message<Body<Value>>>>>>;

/// A link each way, on a session of its own.
#[derive(Debug)]
struct Pair {
    /// Weak, because the connection's own `$cbs` pair would otherwise keep it alive.
    connection: Weak<Connection>,
    reply_to: String,
    next_id: AtomicU64,
    waiting: Waiting,
    ended: CancellationToken,
    sender: Mutex<Sender>,
    _replies: AbortOnDropHandle<()>,
    // After the links, so that they are dropped first.
    _session: SessionHandle<()>,
}

impl Pair {
    async fn attach(connection: &Arc<Connection>, node: &str) -> Result<Self, Cause> {
        let mut session = connection.session().await.map_err(Cause::from)?;
        let reply_to = format!("{node}-{}", Uuid::new_v4().simple());
        let sender = Sender::builder()
            .name(format!("{reply_to}-requests"))
            .source(reply_to.as_str())
            .target(node)
            .attach(&mut session)
            .await?;
        let receiver = Receiver::builder()
            .name(format!("{reply_to}-replies"))
            .source(node)
            .target(reply_to.as_str())
            .attach(&mut session)
            .await?;
        let waiting = Waiting::default();
        let ended = CancellationToken::new();
        let replies = tokio::spawn(hand_out(receiver, Arc::clone(&waiting), ended.clone()));
        Ok(Self {
            connection: Arc::downgrade(connection),
            reply_to,
            next_id: AtomicU64::new(1),
            waiting,
            ended,
            sender: Mutex::new(sender),
            _replies: AbortOnDropHandle::new(replies),
            _session: session,
        })
    }

    fn is_usable(&self, connection: &Arc<Connection>) -> bool {
        Weak::ptr_eq(&self.connection, &Arc::downgrade(connection)) && !self.ended.is_cancelled()
    }

    async fn call(&self, request: Request) -> Result<Value, Cause> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed).to_string();
        let (reply, mut answer) = oneshot::channel();
        lock(&self.waiting).insert(id.clone(), reply);
        let _forget = Forget {
            waiting: &self.waiting,
            id: &id,
        };
        let message = self.message(&id, request);
        // A delivery's outcome may stay pending for ever when the peer dies; the caller's time-out ends this.
        let outcome = self.sender.lock().await.send_batchable(message).await?;
        tokio::pin!(outcome);
        let mut sent = false;
        loop {
            tokio::select! {
                reply = &mut answer => return reply.map_err(|_| Cause::Detached).and_then(read),
                outcome = &mut outcome, if !sent => {
                    sent = true;
                    accepted(outcome?)?;
                }
                () = self.ended.cancelled() => return Err(Cause::Detached),
            }
        }
    }

    fn message(&self, id: &str, request: Request) -> Sendable<AmqpValue<Value>> {
        let mut properties = ApplicationProperties::builder().insert("operation", request.operation);
        for (name, value) in request.properties {
            properties = properties.insert(name, value);
        }
        Message::builder()
            .properties(
                Properties::builder()
                    .message_id(MessageId::String(id.to_owned()))
                    .reply_to(self.reply_to.as_str())
                    .build(),
            )
            .application_properties(properties.build())
            .value(request.body)
            .build()
            .into()
    }
}

/// Hands replies to those who wait for them, until the link ends.
async fn hand_out(mut receiver: Receiver, waiting: Waiting, ended: CancellationToken) {
    let _ended = ended.drop_guard();
    loop {
        let delivery = match receiver.recv::<Body<Value>>().await {
            Ok(delivery) => delivery,
            Err(error) => {
                tracing::debug!(%error, "reply link ended");
                return;
            }
        };
        // Replies come settled; this only returns the credit.
        if let Err(error) = receiver.accept(&delivery).await {
            tracing::debug!(%error, "reply link ended");
            return;
        }
        let message = delivery.into_message();
        let id = message
            .properties
            .as_ref()
            .and_then(|properties| properties.correlation_id.clone());
        let waiter = match &id {
            Some(MessageId::String(id)) => lock(&waiting).remove(id),
            _ => None,
        };
        match waiter {
            Some(waiter) => drop(waiter.send(message)),
            None => tracing::debug!(?id, "reply that nobody waits for"),
        }
    }
}

/// Takes a request off the list of those waiting, however its call ends.
struct Forget<'a> {
    waiting: &'a Waiting,
    id: &'a str,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(self.waiting).remove(self.id);
    }
}

/// The map stays whole even if a holder panicked: each use is one call.
fn lock(waiting: &Waiting) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Message<Body<Value>>>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn accepted(outcome: Outcome) -> Result<(), Cause> {
    match outcome {
        Outcome::Accepted(_) => Ok(()),
        Outcome::Rejected(rejected) => Err(rejected.error.map_or(Cause::HandedBack("rejected"), Cause::from)),
        Outcome::Released(_) => Err(Cause::HandedBack("released")),
        Outcome::Modified(_) => Err(Cause::HandedBack("modified")),
    }
}

/// `$cbs` spells the names of the answer's properties `status-code`, `$management` spells them `statusCode`.
fn read(message: Message<Body<Value>>) -> Result<Value, Cause> {
    let properties = message.application_properties.unwrap_or_default().0;
    let get = |names: [&str; 2]| names.iter().find_map(|name| properties.get(*name));
    let status = get(["status-code", "statusCode"])
        .and_then(integer)
        .and_then(|status| u16::try_from(status).ok())
        .ok_or_else(|| Cause::Protocol("the answer has no status code".to_owned()))?;
    if (200..300).contains(&status) {
        return Ok(match message.body {
            Body::Value(AmqpValue(value)) => value,
            _ => Value::Null,
        });
    }
    let text = |value: &SimpleValue| match value {
        SimpleValue::String(text) => Some(text.clone()),
        SimpleValue::Symbol(symbol) => Some(symbol.0.clone()),
        _ => None,
    };
    Err(Cause::Status {
        status,
        condition: get(["error-condition", "errorCondition"])
            .and_then(text)
            .map(Condition::new),
        description: get(["status-description", "statusDescription"])
            .and_then(text)
            .unwrap_or_default(),
    })
}

fn integer(value: &SimpleValue) -> Option<i64> {
    match value {
        SimpleValue::Int(number) => Some((*number).into()),
        SimpleValue::Long(number) => Some(*number),
        SimpleValue::Short(number) => Some((*number).into()),
        SimpleValue::Uint(number) => Some((*number).into()),
        SimpleValue::Ushort(number) => Some((*number).into()),
        _ => None,
    }
}
