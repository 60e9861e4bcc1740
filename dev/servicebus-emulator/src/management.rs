//! `$management`: operations on messages by request and answer
//! <https://learn.microsoft.com/azure/service-bus-messaging/service-bus-amqp-request-response>.

use bytes::Bytes;
use serde_amqp::{
    Value,
    primitives::{Array, Timestamp, Uuid as AmqpUuid},
};
use serde_bytes::ByteBuf;
use uuid::Uuid;

use crate::{
    broker::{Broker, Refusal},
    clock::Moment,
    codec,
    faults::Fate,
    message::Map,
    queue::{Part, QueueName, ReceiveMode, Settlement},
    rpc::{Request, Response},
};

const ARGUMENT: &str = "com.microsoft:argument-error";

/// Answers a request to a queue's management node.
pub fn handle(request: &Request, broker: &Broker, queue: &QueueName, part: Part, now: Moment) -> Response {
    let operation = Operation {
        request,
        broker,
        queue,
        part,
        now,
    };
    let done = match request.operation.as_str() {
        "com.microsoft:renew-lock" => operation.renew_locks(),
        "com.microsoft:update-disposition" => operation.update_disposition(),
        "com.microsoft:peek-message" => operation.peek(),
        "com.microsoft:receive-by-sequence-number" => operation.receive_by_sequence_number(),
        "com.microsoft:schedule-message" => operation.schedule(),
        "com.microsoft:cancel-scheduled-message" => operation.cancel_scheduled(),
        other => {
            return Response::failed(
                501,
                "amqp:not-implemented",
                format!("The operation '{other}' is not supported."),
            );
        }
    };
    done.unwrap_or_else(Response::from)
}

struct Operation<'a> {
    request: &'a Request,
    broker: &'a Broker,
    queue: &'a QueueName,
    part: Part,
    now: Moment,
}

impl Operation<'_> {
    fn renew_locks(&self) -> Result<Response, Refusal> {
        let mut expirations = Vec::new();
        for token in self.tokens()? {
            let until = self
                .broker
                .manage(self.queue, |queue| queue.renew(token, self.now))?;
            expirations.push(Timestamp::from(until));
        }
        Ok(Response::ok(map([(
            "expirations",
            Value::from(Array::from(expirations)),
        )])))
    }

    fn update_disposition(&self) -> Result<Response, Refusal> {
        let modify = match self.request.field("properties-to-modify") {
            Some(Value::Map(map)) => map.clone(),
            _ => Map::new(),
        };
        let text = |name: &str| self.request.field(name).and_then(codec::text);
        let settlement = match text("disposition-status") {
            Some("completed") => Settlement::Complete,
            Some("abandoned") => Settlement::Abandon { modify },
            // Spelt so by every SDK.
            Some("defered") => Settlement::Defer { modify },
            Some("suspended") => {
                Settlement::dead_letter(text("deadletter-reason"), text("deadletter-description"), modify)
            }
            other => {
                return Err(argument(format!(
                    "The disposition-status {other:?} is not supported."
                )));
            }
        };
        let mut response = Response::ok(map([]));
        for token in self.tokens()? {
            let settled = self
                .broker
                .settle(self.queue, token, settlement.clone(), self.now);
            if let Err(refusal) = settled.result {
                response = refusal.into();
            }
            // Of several messages, the first that a switch is set for decides for the answer.
            if matches!(response.fate, Fate::Answer { .. }) {
                response.fate = settled.fate;
            }
        }
        Ok(response)
    }

    fn peek(&self) -> Result<Response, Refusal> {
        let from = self.integer("from-sequence-number")?;
        let count = usize::try_from(self.integer("message-count")?).unwrap_or(0);
        let peeked = self.broker.manage(self.queue, |queue| {
            queue.tick(self.now);
            queue.peek(self.part, from, count)
        })?;
        if peeked.is_empty() {
            return Ok(Response {
                status: 204,
                description: "No Content".to_owned(),
                ..Response::ok(map([]))
            });
        }
        let messages = peeked
            .into_iter()
            .map(|message| map([("message", Value::Binary(ByteBuf::from(message)))]));
        Ok(Response::ok(map([("messages", Value::List(messages.collect()))])))
    }

    fn receive_by_sequence_number(&self) -> Result<Response, Refusal> {
        let mode = match self
            .request
            .field("receiver-settle-mode")
            .and_then(codec::integer)
        {
            // As on links, 1 ("second") locks the message and 0 ("first") takes it for good.
            Some(0) => ReceiveMode::ReceiveAndDelete,
            _ => ReceiveMode::PeekLock,
        };
        let mut messages = Vec::new();
        for sequence in self.integers("sequence-numbers")? {
            let delivery = self.broker.manage(self.queue, |queue| {
                queue.receive_deferred(self.part, sequence, mode, Uuid::new_v4(), self.now)
            })?;
            messages.push(map([
                ("message", Value::Binary(ByteBuf::from(delivery.payload))),
                (
                    "lock-token",
                    Value::Uuid(AmqpUuid::from(delivery.token.into_bytes())),
                ),
            ]));
        }
        Ok(Response::ok(map([("messages", Value::List(messages))])))
    }

    fn schedule(&self) -> Result<Response, Refusal> {
        let mut sequences = Vec::new();
        for entry in self.values("messages")? {
            let Value::Map(entry) = entry else {
                return Err(argument("Each of 'messages' must be a map."));
            };
            let Some(Value::Binary(message)) = entry.get(&Value::from("message")) else {
                return Err(argument("Each of 'messages' must have a binary 'message'."));
            };
            let message = Bytes::copy_from_slice(message);
            sequences.push(self.broker.schedule(self.queue, &message, self.now)?);
        }
        Ok(Response::ok(map([(
            "sequence-numbers",
            Value::from(Array::from(sequences)),
        )])))
    }

    fn cancel_scheduled(&self) -> Result<Response, Refusal> {
        for sequence in self.integers("sequence-numbers")? {
            self.broker.manage(self.queue, |queue| {
                queue.tick(self.now);
                queue.cancel_scheduled(sequence)
            })?;
        }
        Ok(Response::ok(map([])))
    }

    /// Values that clients send as an array, a list or, when there is one, bare.
    fn values(&self, name: &str) -> Result<Vec<Value>, Refusal> {
        match self.request.field(name) {
            Some(Value::Array(values)) => Ok(values.0.clone()),
            Some(Value::List(values)) => Ok(values.clone()),
            Some(Value::Null) | None => Err(argument(format!("'{name}' is missing."))),
            Some(one) => Ok(vec![one.clone()]),
        }
    }

    fn tokens(&self) -> Result<Vec<Uuid>, Refusal> {
        self.values("lock-tokens")?
            .into_iter()
            .map(|token| match token {
                Value::Uuid(token) => Ok(Uuid::from_bytes(token.into_inner())),
                _ => Err(argument("Each of 'lock-tokens' must be a uuid.")),
            })
            .collect()
    }

    fn integers(&self, name: &str) -> Result<Vec<i64>, Refusal> {
        self.values(name)?
            .iter()
            .map(|value| {
                codec::integer(value).ok_or_else(|| argument(format!("Each of '{name}' must be an integer.")))
            })
            .collect()
    }

    fn integer(&self, name: &str) -> Result<i64, Refusal> {
        self.request
            .field(name)
            .and_then(codec::integer)
            .ok_or_else(|| argument(format!("'{name}' must be an integer.")))
    }
}

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.condition.as_str() {
            "com.microsoft:message-lock-lost" => 410,
            "com.microsoft:message-not-found" | "amqp:not-found" => 404,
            ARGUMENT | "amqp:decode-error" => 400,
            _ => 500,
        };
        Response::failed(status, &refusal.condition, refusal.description)
    }
}

fn argument(description: impl Into<String>) -> Refusal {
    Refusal::new(ARGUMENT, description)
}

fn map<const N: usize>(entries: [(&str, Value); N]) -> Value {
    Value::Map(
        entries
            .into_iter()
            .map(|(key, value)| (Value::from(key), value))
            .collect(),
    )
}
