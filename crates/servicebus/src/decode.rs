//! Messages on their way in: from AMQP sections to the fields that applications use.

use std::collections::BTreeMap;

use bytes::Bytes;
use fe2o3_amqp_types::messaging::annotations::OwnedKey;
use fe2o3_amqp_types::messaging::message::__private::Deserializable;
use fe2o3_amqp_types::messaging::{AmqpValue, Body, Message, MessageAnnotations, MessageId};
use fe2o3_amqp_types::primitives::{SimpleValue, Value};
use jiff::Timestamp;
use uuid::Uuid;

use crate::error::Cause;
use crate::message::{Peeked, Property, Received};
use crate::receiver::Held;

/// A received message from its sections; `now` stands in for a lock's end that the broker did not tell.
pub(crate) fn received(
    message: Message<Body<Value>>,
    delivery_tag: &[u8],
    now: Timestamp,
    held: Held,
) -> Result<Received, Cause> {
    let lock_token = lock_token(delivery_tag)?;
    let annotations = message.message_annotations.clone().unwrap_or_default();
    let message = content(message);
    Ok(Received {
        message_id: message.message_id,
        body: message.body,
        content_type: message.content_type,
        subject: message.subject,
        correlation_id: message.correlation_id,
        application_properties: message.application_properties,
        delivery_count: message.delivery_count,
        sequence_number: message.sequence_number,
        enqueued_at: message.enqueued_at,
        lock_token,
        locked_until: timestamp(annotation(&annotations, "x-opt-locked-until")).unwrap_or(now),
        held,
    })
}

/// A message as `$management` hands it out to those who only look.
pub(crate) fn peeked(encoded: &[u8]) -> Result<Peeked, Cause> {
    let Deserializable(message) = serde_amqp::from_slice::<Deserializable<Message<Body<Value>>>>(encoded)
        .map_err(|error| Cause::Protocol(format!("a message that cannot be read: {error}")))?;
    Ok(content(message))
}

/// Everything but the lock.
fn content(message: Message<Body<Value>>) -> Peeked {
    let properties = message.properties.unwrap_or_default();
    let annotations = message.message_annotations.unwrap_or_default();
    let application_properties = message.application_properties.unwrap_or_default().0;
    Peeked {
        message_id: properties.message_id.map(text_of_id).unwrap_or_default(),
        body: body(message.body),
        content_type: properties.content_type.map(|symbol| symbol.0),
        subject: properties.subject,
        correlation_id: properties.correlation_id.map(text_of_id),
        application_properties: application_properties
            .into_iter()
            .map(|(name, value)| (name, value.into()))
            .collect::<BTreeMap<_, _>>(),
        delivery_count: message.header.map_or(0, |header| header.delivery_count),
        sequence_number: match annotation(&annotations, "x-opt-sequence-number") {
            Some(Value::Long(number)) => *number,
            _ => 0,
        },
        enqueued_at: timestamp(annotation(&annotations, "x-opt-enqueued-time")),
    }
}

/// The delivery tag is the lock token in the byte order of a .NET GUID.
fn lock_token(delivery_tag: &[u8]) -> Result<Uuid, Cause> {
    let bytes = <[u8; 16]>::try_from(delivery_tag)
        .map_err(|_| Cause::Protocol(format!("a delivery tag of {} bytes, not 16", delivery_tag.len())))?;
    Ok(Uuid::from_bytes_le(bytes))
}

fn text_of_id(id: MessageId) -> String {
    match id {
        MessageId::String(text) => text,
        MessageId::Uuid(id) => Uuid::from_bytes(id.into_inner()).to_string(),
        MessageId::Ulong(number) => number.to_string(),
        MessageId::Binary(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

fn body(body: Body<Value>) -> Bytes {
    match body {
        Body::Data(sections) => {
            let mut sections = sections.into_iter().map(|data| data.0.into_vec());
            let mut bytes = sections.next().unwrap_or_default();
            sections.for_each(|section| bytes.extend(section));
            bytes.into()
        }
        Body::Value(AmqpValue(Value::String(text))) => text.into(),
        Body::Value(AmqpValue(Value::Binary(bytes))) => bytes.into_vec().into(),
        // Neither has an agreed form in bytes.
        Body::Value(_) | Body::Sequence(_) | Body::Empty => Bytes::new(),
    }
}

fn annotation<'a>(annotations: &'a MessageAnnotations, name: &str) -> Option<&'a Value> {
    annotations.0.get(&OwnedKey::from(name))
}

fn timestamp(value: Option<&Value>) -> Option<Timestamp> {
    match value {
        Some(Value::Timestamp(at)) => Timestamp::from_millisecond(at.milliseconds()).ok(),
        _ => None,
    }
}

impl From<SimpleValue> for Property {
    fn from(value: SimpleValue) -> Self {
        match value {
            SimpleValue::String(text) => Self::Text(text),
            SimpleValue::Symbol(symbol) => Self::Text(symbol.0),
            SimpleValue::Char(character) => Self::Text(character.into()),
            SimpleValue::Bool(value) => Self::Boolean(value),
            SimpleValue::Byte(number) => Self::Integer(number.into()),
            SimpleValue::Short(number) => Self::Integer(number.into()),
            SimpleValue::Int(number) => Self::Integer(number.into()),
            SimpleValue::Long(number) => Self::Integer(number),
            SimpleValue::Ubyte(number) => Self::Integer(number.into()),
            SimpleValue::Ushort(number) => Self::Integer(number.into()),
            SimpleValue::Uint(number) => Self::Integer(number.into()),
            SimpleValue::Ulong(number) => match i64::try_from(number) {
                Ok(number) => Self::Integer(number),
                Err(_) => Self::Text(number.to_string()),
            },
            SimpleValue::Float(number) => Self::Float(number.into_inner().into()),
            SimpleValue::Double(number) => Self::Float(number.into_inner()),
            SimpleValue::Timestamp(at) => {
                Timestamp::from_millisecond(at.milliseconds()).map_or(Self::Null, Self::Timestamp)
            }
            SimpleValue::Uuid(id) => Self::Uuid(Uuid::from_bytes(id.into_inner())),
            SimpleValue::Binary(bytes) => Self::Binary(bytes.into_vec().into()),
            _ => Self::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// The example of servicebus documentation for .NET's `Guid.ToByteArray`.
    #[test]
    fn lock_token_is_the_tag_in_guid_byte_order() {
        let tag = [
            0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff,
        ];

        let token = lock_token(&tag).unwrap();

        assert_eq!(token.to_string(), "00112233-4455-6677-8899-aabbccddeeff");
    }

    #[test]
    fn tag_of_another_length_is_refused() {
        assert!(matches!(lock_token(&[0; 4]), Err(Cause::Protocol(_))));
    }

    #[rstest]
    #[case::text("a".into())]
    #[case::integer(Property::Integer(-7))]
    #[case::float(Property::Float(0.5))]
    #[case::boolean(true.into())]
    #[case::timestamp(Property::Timestamp(Timestamp::from_second(1).unwrap()))]
    #[case::uuid(Uuid::from_u128(7).into())]
    #[case::binary(Property::Binary(Bytes::from_static(b"\x00\x01")))]
    #[case::null(Property::Null)]
    fn property_comes_back_as_it_was_sent(#[case] property: Property) {
        assert_eq!(Property::from(SimpleValue::from(property.clone())), property);
    }

    #[rstest]
    #[case::data(Body::Data(vec![b"ab".to_vec().into(), b"c".to_vec().into()].into()), b"abc")]
    #[case::text(Body::Value(AmqpValue(Value::String("abc".into()))), b"abc")]
    #[case::binary(Body::Value(AmqpValue(Value::Binary(b"abc".to_vec().into()))), b"abc")]
    #[case::number(Body::Value(AmqpValue(Value::Int(1))), b"")]
    #[case::nothing(Body::Empty, b"")]
    fn body_is_read_as_bytes(#[case] sections: Body<Value>, #[case] expected: &[u8]) {
        assert_eq!(body(sections), expected);
    }
}
