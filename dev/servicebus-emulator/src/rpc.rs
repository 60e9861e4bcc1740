//! Requests and answers as messages: what `$cbs` and `$management` have in common.

use serde_amqp::{Value, primitives::Symbol};

use crate::{
    codec,
    faults::Fate,
    message::{self, Map, Message},
};

const MESSAGE_ID: usize = 0;
const REPLY_TO: usize = 4;

/// Which spelling of the status an answer uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `status-code`, `status-description`.
    Cbs,
    /// `statusCode`, `statusDescription`, `errorCondition`.
    Management,
}

/// A message that wants an answer.
#[derive(Debug)]
pub struct Request {
    id: Value,
    /// The address of the link that waits for the answer.
    pub reply_to: Option<String>,
    /// What to do.
    pub operation: String,
    properties: Map,
    /// What with.
    pub body: Value,
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// An HTTP status.
    pub status: i32,
    /// The text for people.
    pub description: String,
    /// The AMQP condition of a failure.
    pub condition: Option<String>,
    /// What was asked for.
    pub body: Value,
    /// What a fault switch makes of the answer.
    pub fate: Fate,
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// When the message has no decodable properties. A missing operation is an empty one.
    pub fn parse(message: &Message) -> Result<Self, codec::Error> {
        let mut fields = message.properties()?;
        let properties = message.application_properties().clone();
        let text = |name: &str| {
            properties
                .get(&Value::from(name))
                .and_then(codec::text)
                .map(str::to_owned)
        };
        Ok(Self {
            id: codec::take(&mut fields, MESSAGE_ID),
            reply_to: codec::text(&codec::take(&mut fields, REPLY_TO)).map(str::to_owned),
            operation: text("operation").unwrap_or_default(),
            body: message.body_value().unwrap_or_default(),
            properties,
        })
    }

    /// A textual application property.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.get(&Value::from(name)).and_then(codec::text)
    }

    /// An entry of the body map.
    pub fn field(&self, name: &str) -> Option<&Value> {
        match &self.body {
            Value::Map(map) => map.get(&Value::from(name)),
            _ => None,
        }
    }

    /// Encodes an answer to this request. The request's id comes back in its own type: Python sends a uuid and
    /// looks for a uuid.
    ///
    /// # Errors
    /// When the answer cannot be encoded.
    pub fn answer(&self, response: Response, dialect: Dialect) -> Result<Vec<u8>, codec::Error> {
        let (code, description) = match dialect {
            Dialect::Cbs => ("status-code", "status-description"),
            Dialect::Management => ("statusCode", "statusDescription"),
        };
        let mut properties = Map::new();
        // An int, not any other width: Go looks for exactly that.
        properties.insert(Value::from(code), Value::Int(response.status));
        properties.insert(Value::from(description), Value::String(response.description));
        if let Some(condition) = response.condition {
            properties.insert(
                Value::from("errorCondition"),
                Value::Symbol(Symbol::from(condition)),
            );
        }
        message::encode_reply(self.id.clone(), properties, response.body)
    }
}

impl Response {
    /// Success with a body.
    pub fn ok(body: Value) -> Self {
        Self {
            status: 200,
            description: "OK".to_owned(),
            condition: None,
            body,
            fate: Fate::NOW,
        }
    }

    /// Failure.
    pub fn failed(status: i32, condition: &str, description: impl Into<String>) -> Self {
        Self {
            status,
            description: description.into(),
            condition: Some(condition.to_owned()),
            body: Value::Map(Map::new()),
            fate: Fate::NOW,
        }
    }
}
