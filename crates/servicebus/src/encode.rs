//! Messages on their way out: encoding, and grouping into batches.

use std::num::NonZeroUsize;

use bytes::Bytes;
use fe2o3_amqp::link::delivery::Sendable;
use fe2o3_amqp_types::messaging::message::__private::Serializable;
use fe2o3_amqp_types::messaging::{ApplicationProperties, Batch, Data, Message, MessageId, Properties};
use fe2o3_amqp_types::primitives::{OrderedMap, SimpleValue, Symbol, Timestamp as AmqpTimestamp, Uuid};
use serde_bytes::ByteBuf;

use crate::error::{Cause, Error};
use crate::message::{Outgoing, Property};

/// The message-format of a batch: data sections that each hold one encoded message.
const BATCH_FORMAT: u32 = 0x8001_3700;

/// A message ready to be sent alone or in a batch.
#[derive(Debug)]
pub(crate) struct Encoded {
    properties: Properties,
    application_properties: Option<ApplicationProperties>,
    body: Bytes,
    /// The whole message.
    bytes: Vec<u8>,
}

impl Encoded {
    pub(crate) fn new(message: Outgoing) -> Result<Self, Error> {
        let message_id = message.message_id;
        let mut properties = Properties::new();
        properties.message_id = Some(MessageId::String(message_id.clone()));
        properties.correlation_id = message.correlation_id.map(MessageId::String);
        properties.content_type = message.content_type.map(Symbol);
        properties.subject = message.subject;
        let application_properties = (!message.application_properties.is_empty()).then(|| {
            let values = message.application_properties.into_iter();
            ApplicationProperties(
                values
                    .map(|(name, value)| (name, value.into()))
                    .collect::<OrderedMap<_, _>>(),
            )
        });
        let outgoing = Message::builder()
            .properties(properties.clone())
            .application_properties(application_properties.clone())
            .data(message.body.to_vec())
            .build();
        let bytes = serde_amqp::to_vec(&Serializable(outgoing)).map_err(|error| Error::Encode {
            message_id,
            source: Cause::Protocol(error.to_string()),
        })?;
        Ok(Self {
            properties,
            application_properties,
            body: message.body,
            bytes,
        })
    }

    /// What [`plan`] needs to know.
    pub(crate) fn size(&self) -> Size {
        Size {
            whole: self.bytes.len(),
            envelope: self.bytes.len() - section(self.body.len()),
        }
    }
}

impl From<Property> for SimpleValue {
    fn from(value: Property) -> Self {
        match value {
            Property::Text(text) => Self::String(text),
            Property::Integer(number) => Self::Long(number),
            Property::Float(number) => Self::Double(number.into()),
            Property::Boolean(value) => Self::Bool(value),
            Property::Timestamp(at) => Self::Timestamp(AmqpTimestamp::from_milliseconds(at.as_millisecond())),
            Property::Uuid(id) => Self::Uuid(Uuid::from(id.into_bytes())),
            Property::Binary(bytes) => Self::Binary(ByteBuf::from(bytes.to_vec())),
            Property::Null => Self::Null,
        }
    }
}

/// The sizes of an encoded message, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    /// All of it.
    pub whole: usize,
    /// All but the body; a batch begins with its first message's envelope.
    pub envelope: usize,
}

/// The length of a data section: descriptor (3), format code (1), length (1 or 4), and the bytes.
/// AMQP 1.0, sections 1.6.19 and 3.2.6; the Go SDK counts alike (`message_batch.go`), only that the encoder
/// used here takes the long form for 255 bytes already.
fn section(bytes: usize) -> usize {
    if bytes < 255 { bytes + 5 } else { bytes + 8 }
}

/// Groups of messages to send, and those that no group can take.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub batches: Vec<Vec<usize>>,
    pub too_large: Vec<usize>,
}

/// Groups `messages` (place and size) in order, each group at most `limit` bytes and `most` messages.
pub(crate) fn plan(messages: &[(usize, Size)], limit: usize, most: NonZeroUsize) -> Plan {
    let mut plan = Plan::default();
    let mut open = Vec::new();
    let mut open_size = 0;
    for &(place, size) in messages {
        if size.whole > limit {
            plan.too_large.push(place);
            continue;
        }
        let grown = open_size + section(size.whole);
        if !open.is_empty() && (open.len() >= most.get() || grown > limit) {
            plan.batches.push(std::mem::take(&mut open));
        }
        open_size = if open.is_empty() {
            size.envelope + section(size.whole)
        } else {
            grown
        };
        open.push(place);
    }
    if !open.is_empty() {
        plan.batches.push(open);
    }
    plan
}

/// A group as one transfer: a single message as it is, several as a batch.
pub(crate) fn transfer(group: &[&Encoded]) -> Sendable<Batch<Data>> {
    let (properties, application_properties) = group.first().map_or((None, None), |first| {
        (
            Some(first.properties.clone()),
            first.application_properties.clone(),
        )
    });
    let (format, sections): (u32, Vec<Data>) = match group {
        [single] => (0, vec![Data::from(single.body.to_vec())]),
        several => (
            BATCH_FORMAT,
            several
                .iter()
                .map(|message| Data::from(message.bytes.clone()))
                .collect(),
        ),
    };
    Sendable::builder()
        .message(
            Message::builder()
                .properties(properties)
                .application_properties(application_properties)
                .data_batch(sections)
                .build(),
        )
        .message_format(format)
        .build()
}

#[cfg(test)]
mod tests {
    use proptest::{prop_assert, prop_assert_eq, proptest};
    use rstest::rstest;

    use super::*;

    fn an_outgoing(body: usize) -> Outgoing {
        Outgoing {
            message_id: "0190d7c8-0000-7000-8000-000000000000".into(),
            body: vec![b'x'; body].into(),
            content_type: Some("application/json".into()),
            application_properties: [("traceparent".into(), "00-abc-def-01".into())].into(),
            ..Outgoing::default()
        }
    }

    fn encoded_length(sendable: &Sendable<Batch<Data>>) -> usize {
        serde_amqp::to_vec(&Serializable(sendable.message.clone()))
            .unwrap()
            .len()
    }

    #[rstest]
    #[case::empty(0)]
    #[case::short(254)]
    #[case::at_the_seam(255)]
    #[case::long(256)]
    #[case::very_long(70_000)]
    fn sizes_are_those_on_the_wire(#[case] body: usize) {
        let message = Encoded::new(an_outgoing(body)).unwrap();
        let size = message.size();

        assert_eq!(encoded_length(&transfer(&[&message])), size.whole);
        assert_eq!(
            encoded_length(&transfer(&[&message, &message])),
            size.envelope + 2 * section(size.whole)
        );
    }

    #[test]
    fn single_message_goes_as_it_is_and_several_as_a_batch() {
        let message = Encoded::new(an_outgoing(3)).unwrap();

        assert_eq!(transfer(&[&message]).message_format, 0);
        assert_eq!(transfer(&[&message, &message]).message_format, 0x8001_3700);
    }

    /// Messages of 100 bytes, 20 of them envelope: in a batch 105 each, and 20 once.
    #[rstest]
    #[case::none(0, 1_000, 100, &[])]
    #[case::one(1, 1_000, 100, &[1])]
    #[case::all_fit(3, 1_000, 100, &[3])]
    #[case::fits_exactly(2, 230, 100, &[2])]
    #[case::one_byte_too_few(2, 229, 100, &[1, 1])]
    #[case::alone_without_an_envelope_of_the_batch(2, 100, 100, &[1, 1])]
    #[case::count_limit(7, 10_000, 3, &[3, 3, 1])]
    #[case::count_limit_of_one(2, 10_000, 1, &[1, 1])]
    fn batches_keep_to_size_and_count(
        #[case] messages: usize,
        #[case] limit: usize,
        #[case] most: usize,
        #[case] expected: &[usize],
    ) {
        let size = Size {
            whole: 100,
            envelope: 20,
        };
        let messages: Vec<_> = (0..messages).map(|place| (place, size)).collect();

        let plan = plan(&messages, limit, NonZeroUsize::new(most).unwrap());

        let lengths: Vec<_> = plan.batches.iter().map(Vec::len).collect();
        assert_eq!(lengths, expected);
        assert!(plan.batches.concat().is_sorted());
        assert!(plan.too_large.is_empty());
    }

    proptest! {
        #[test]
        fn every_message_is_in_one_batch_and_no_batch_is_too_large(
            sizes in proptest::collection::vec((0_usize..400, 0_usize..300), 0..60),
            limit in 0_usize..900,
            most in 1_usize..20,
        ) {
            let messages: Vec<_> = sizes
                .iter()
                .map(|(envelope, body)| Size { whole: envelope + section(*body), envelope: *envelope })
                .enumerate()
                .collect();

            let plan = plan(&messages, limit, NonZeroUsize::new(most).unwrap());

            let mut places = [plan.batches.concat(), plan.too_large.clone()].concat();
            places.sort_unstable();
            prop_assert_eq!(places, (0..messages.len()).collect::<Vec<_>>());
            for batch in &plan.batches {
                prop_assert!(batch.len() <= most);
                let size = match batch[..] {
                    [single] => messages[single].1.whole,
                    _ => batch.iter().fold(messages[batch[0]].1.envelope, |size, place| {
                        size + section(messages[*place].1.whole)
                    }),
                };
                prop_assert!(size <= limit, "{} in {:?}", size, batch);
            }
            for place in plan.too_large {
                prop_assert!(messages[place].1.whole > limit);
            }
        }
    }

    #[test]
    fn message_too_large_is_set_apart_and_the_rest_keeps_its_order() {
        let size = |whole| Size { whole, envelope: 10 };
        let messages = [(4, size(50)), (5, size(501)), (6, size(50)), (9, size(500))];

        let plan = plan(&messages, 500, NonZeroUsize::new(10).unwrap());

        assert_eq!(plan.too_large, [5]);
        assert_eq!(plan.batches, [vec![4, 6], vec![9]]);
    }
}
