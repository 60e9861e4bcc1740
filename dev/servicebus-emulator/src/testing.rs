//! Messages for unit tests, encoded as a sender would.

use std::time::Duration;

use bytes::Bytes;
use serde_amqp::{Value, described::Described, descriptor::Descriptor};
use uuid::Uuid;

use crate::{
    clock::Moment,
    codec,
    message::{Map, Message},
};

/// A message to be, valid as it is.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    id: Option<Value>,
    ttl: Option<Duration>,
    annotations: Map,
    application_properties: Map,
    body: Vec<u8>,
}

/// A message with a message-id.
pub fn message(id: &str) -> Draft {
    Draft {
        id: Some(Value::from(id)),
        body: section(0x75, binary(id.as_bytes())),
        ..Draft::default()
    }
}

/// A message without one.
pub fn nameless() -> Draft {
    Draft {
        body: section(0x75, binary(b"?")),
        ..Draft::default()
    }
}

impl Draft {
    pub fn id(mut self, id: Value) -> Self {
        self.id = Some(id);
        self
    }

    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    pub fn scheduled(self, at: Moment) -> Self {
        self.annotation("x-opt-scheduled-enqueue-time", at.into())
    }

    pub fn annotation(mut self, key: &str, value: Value) -> Self {
        self.annotations.insert(Value::Symbol(key.into()), value);
        self
    }

    pub fn property(mut self, key: &str, value: &str) -> Self {
        self.application_properties
            .insert(Value::from(key), Value::from(value));
        self
    }

    /// Body sections in place of the one data section.
    pub fn body(mut self, sections: &[(u64, Value)]) -> Self {
        self.body = sections
            .iter()
            .flat_map(|(code, value)| section(*code, value.clone()))
            .collect();
        self
    }

    pub fn encode(self) -> Bytes {
        let mut out = Vec::new();
        if let Some(ttl) = self.ttl {
            let millis = u32::try_from(ttl.as_millis()).unwrap();
            out.extend(section(
                0x70,
                Value::List(vec![Value::Null, Value::Null, Value::Uint(millis)]),
            ));
        }
        if !self.annotations.is_empty() {
            out.extend(section(0x72, Value::Map(self.annotations)));
        }
        if let Some(id) = self.id {
            out.extend(section(0x73, Value::List(vec![id])));
        }
        if !self.application_properties.is_empty() {
            out.extend(section(0x74, Value::Map(self.application_properties)));
        }
        out.extend(self.body);
        out.into()
    }

    pub fn build(self) -> Message {
        Message::parse(&self.encode(), Uuid::nil()).unwrap()
    }
}

/// An encoded section.
pub fn section(code: u64, value: Value) -> Vec<u8> {
    codec::encode(&Described {
        descriptor: Descriptor::Code(code),
        value,
    })
    .unwrap()
}

pub fn binary(bytes: &[u8]) -> Value {
    Value::Binary(bytes.to_vec().into())
}

/// The value of each section of an encoded message, by descriptor.
pub fn sections(mut payload: &[u8]) -> Vec<(u64, Value)> {
    let mut found = Vec::new();
    while !payload.is_empty() {
        let length = codec::value_length(payload).unwrap();
        match codec::decode(&payload[..length]).unwrap() {
            Value::Described(section) => match section.descriptor {
                Descriptor::Code(code) => found.push((code, section.value)),
                Descriptor::Name(name) => panic!("a section named {name:?}"),
            },
            other => panic!("not a section: {other:?}"),
        }
        payload = &payload[length..];
    }
    found
}

/// An annotation of an encoded message.
pub fn annotation(payload: &[u8], name: &str) -> Option<Value> {
    entry(payload, 0x72, &Value::Symbol(name.into()))
}

/// An application property of an encoded message.
pub fn property(payload: &[u8], name: &str) -> Option<Value> {
    entry(payload, 0x74, &Value::from(name))
}

/// The delivery count in an encoded message's header.
pub fn delivery_count(payload: &[u8]) -> Value {
    match sections(payload).into_iter().find(|(code, _)| *code == 0x70) {
        Some((_, Value::List(mut fields))) => codec::take(&mut fields, 4),
        _ => Value::Null,
    }
}

fn entry(payload: &[u8], code: u64, key: &Value) -> Option<Value> {
    sections(payload)
        .into_iter()
        .find(|(found, _)| *found == code)
        .and_then(|(_, section)| match section {
            Value::Map(map) => map.get(key).cloned(),
            _ => None,
        })
}
