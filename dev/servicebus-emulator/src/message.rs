//! A message as the broker keeps it. Everything a sender wrote (body, properties, footer) stays as the
//! bytes that came in; only the sections that a broker must write are taken apart.
//!
//! Sections: AMQP 1.0 part 3, section 3.2 <https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-messaging-v1.0-os.html>.

use std::time::Duration;

use bytes::Bytes;
use serde_amqp::{
    Value,
    described::Described,
    descriptor::Descriptor,
    primitives::{OrderedMap, Timestamp, Uuid as AmqpUuid},
};
use uuid::Uuid;

use crate::{
    clock::Moment,
    codec::{self, Error},
};

const HEADER: u64 = 0x70;
const DELIVERY_ANNOTATIONS: u64 = 0x71;
const MESSAGE_ANNOTATIONS: u64 = 0x72;
const PROPERTIES: u64 = 0x73;
const APPLICATION_PROPERTIES: u64 = 0x74;
const DATA: u64 = 0x75;
const SEQUENCE: u64 = 0x76;
const AMQP_VALUE: u64 = 0x77;
const FOOTER: u64 = 0x78;

/// `message-format` of a transfer whose data sections are whole messages, as every SDK sends a batch.
pub const BATCH_FORMAT: u32 = 0x8001_3700;

const ENQUEUED_TIME: &str = "x-opt-enqueued-time";
const SEQUENCE_NUMBER: &str = "x-opt-sequence-number";
const LOCKED_UNTIL: &str = "x-opt-locked-until";
const STATE: &str = "x-opt-message-state";
const ENQUEUE_SEQUENCE_NUMBER: &str = "x-opt-enqueue-sequence-number";
const DEAD_LETTER_SOURCE: &str = "x-opt-deadletter-source";
const SCHEDULED_ENQUEUE_TIME: &str = "x-opt-scheduled-enqueue-time";
const LOCK_TOKEN: &str = "x-opt-lock-token";

/// Annotations that only the broker may write; a sender's are dropped (a forwarded message brings its old ones).
const BROKER_ANNOTATIONS: [&str; 6] = [
    ENQUEUED_TIME,
    SEQUENCE_NUMBER,
    LOCKED_UNTIL,
    STATE,
    ENQUEUE_SEQUENCE_NUMBER,
    DEAD_LETTER_SOURCE,
];

/// A map with keys as they came, symbols or strings.
pub type Map = OrderedMap<Value, Value>;

/// The parts of a message header that a sender decides.
#[derive(Debug, Clone, Default, PartialEq)]
struct Header {
    durable: Value,
    priority: Value,
    ttl: Option<u32>,
}

/// A message with a message-id, apart from anything that the queue knows about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    header: Header,
    annotations: Map,
    properties: Bytes,
    application_properties: Map,
    body: Bytes,
    footer: Bytes,
    id: String,
}

/// What the broker writes upon a message when it hands it out.
#[derive(Debug, Clone, PartialEq)]
pub struct Stamp {
    /// Failed deliveries before this one.
    pub delivery_count: u32,
    /// When the message became available, or was handed in for later.
    pub enqueued: Moment,
    /// Its number in the queue.
    pub sequence: i64,
    /// Until when the receiver holds it, when it does.
    pub locked_until: Option<Moment>,
    /// 0 active, 1 deferred, 2 scheduled.
    pub state: i32,
    /// Its number before it was dead-lettered.
    pub enqueue_sequence: Option<i64>,
    /// The queue that it was dead-lettered from.
    pub dead_letter_source: Option<String>,
    /// The lock token as a delivery annotation, which receive-by-sequence-number answers with.
    pub lock_token: Option<Uuid>,
}

impl Message {
    /// Takes a whole encoded message apart. One without a message-id gets `fresh_id`, as in Service Bus: the
    /// JavaScript SDK cannot settle a message without.
    ///
    /// # Errors
    /// When the payload is not a sequence of AMQP sections with a body.
    pub fn parse(payload: &Bytes, fresh_id: Uuid) -> Result<Self, Error> {
        let mut header = Header::default();
        let mut annotations = Map::new();
        let mut properties = None;
        let mut application_properties = Map::new();
        let mut body: Option<(usize, usize)> = None;
        let mut footer = Bytes::new();

        for section in sections(payload) {
            let Section { code, start, end } = section?;
            let bytes = &payload[start..end];
            match code {
                HEADER => header = parse_header(bytes)?,
                DELIVERY_ANNOTATIONS => {}
                MESSAGE_ANNOTATIONS => annotations = sender_annotations(bytes)?,
                PROPERTIES => properties = Some(payload.slice(start..end)),
                APPLICATION_PROPERTIES => application_properties = described_map(bytes)?,
                DATA | SEQUENCE | AMQP_VALUE => body = Some((body.map_or(start, |(first, _)| first), end)),
                FOOTER => footer = payload.slice(start..end),
                _ => return Err(Error::Shape("a section of a message")),
            }
        }
        let (start, end) = body.ok_or(Error::Shape("a message with a body"))?;
        let (id, properties) = identify(properties, fresh_id)?;
        Ok(Self {
            header,
            annotations,
            properties,
            application_properties,
            body: payload.slice(start..end),
            footer,
            id,
        })
    }

    /// The message-id as text; what duplicate detection compares.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// How long the sender wants the message to live, when it says so.
    pub fn ttl(&self) -> Option<Duration> {
        self.header.ttl.map(|millis| Duration::from_millis(millis.into()))
    }

    /// When the sender wants the message to appear, when it says so.
    pub fn scheduled_for(&self) -> Option<Moment> {
        match self.annotations.get(&symbol(SCHEDULED_ENQUEUE_TIME)) {
            Some(Value::Timestamp(at)) => Some(at.clone().into()),
            _ => None,
        }
    }

    /// The application properties, for requests to `$cbs` and `$management`.
    pub fn application_properties(&self) -> &Map {
        &self.application_properties
    }

    /// Sets application properties, as dead-lettering and "properties to modify" do. Keys become strings.
    pub fn modify_properties(&mut self, changes: Map) {
        for (key, value) in changes {
            if let Some(key) = codec::text(&key) {
                self.application_properties.insert(Value::from(key), value);
            }
        }
    }

    /// The fields of the properties section.
    ///
    /// # Errors
    /// When the section cannot be decoded.
    pub fn properties(&self) -> Result<Vec<Value>, Error> {
        Ok(codec::described_list(codec::decode(&self.properties)?)?.1)
    }

    /// The value of an amqp-value body.
    ///
    /// # Errors
    /// When the body is data or sequences.
    pub fn body_value(&self) -> Result<Value, Error> {
        match codec::decode(&self.body)? {
            Value::Described(described) if described.descriptor == Descriptor::Code(AMQP_VALUE) => {
                Ok(described.value)
            }
            _ => Err(Error::Shape("an amqp-value body")),
        }
    }

    /// The message as it is stored: all that the sender wrote, nothing that the queue adds.
    ///
    /// # Errors
    /// When a section cannot be encoded.
    pub fn encode_bare(&self) -> Result<Vec<u8>, Error> {
        self.encode_sections(Value::Null, None, self.annotations.clone())
    }

    /// The message as it goes to a receiver.
    ///
    /// # Errors
    /// When a section cannot be encoded.
    pub fn encode(&self, stamp: &Stamp) -> Result<Vec<u8>, Error> {
        let mut annotations = self.annotations.clone();
        let mut annotate = |name: &str, value: Value| annotations.insert(symbol(name), value);
        annotate(ENQUEUED_TIME, Value::Timestamp(stamp.enqueued.into()));
        annotate(SEQUENCE_NUMBER, Value::Long(stamp.sequence));
        annotate(STATE, Value::Int(stamp.state));
        if let Some(until) = stamp.locked_until {
            annotate(LOCKED_UNTIL, Value::Timestamp(until.into()));
        }
        if let Some(sequence) = stamp.enqueue_sequence {
            annotate(ENQUEUE_SEQUENCE_NUMBER, Value::Long(sequence));
        }
        if let Some(source) = &stamp.dead_letter_source {
            annotate(DEAD_LETTER_SOURCE, Value::from(source.as_str()));
        }
        self.encode_sections(Value::Uint(stamp.delivery_count), stamp.lock_token, annotations)
    }

    fn encode_sections(
        &self,
        delivery_count: Value,
        lock_token: Option<Uuid>,
        annotations: Map,
    ) -> Result<Vec<u8>, Error> {
        // All five fields, by hand: the typed header leaves out trailing defaults, and the Python SDK then
        // shows no delivery count at all.
        let header = Value::List(vec![
            self.header.durable.clone(),
            self.header.priority.clone(),
            self.header.ttl.map_or(Value::Null, Value::Uint),
            Value::Null,
            delivery_count,
        ]);
        let mut out = section(HEADER, header)?;
        if let Some(token) = lock_token {
            let token = OrderedMap::from_iter([(
                symbol(LOCK_TOKEN),
                Value::Uuid(AmqpUuid::from(token.into_bytes())),
            )]);
            out.extend(section(DELIVERY_ANNOTATIONS, Value::Map(token))?);
        }
        if !annotations.is_empty() {
            out.extend(section(MESSAGE_ANNOTATIONS, Value::Map(annotations))?);
        }
        out.extend_from_slice(&self.properties);
        if !self.application_properties.is_empty() {
            out.extend(section(
                APPLICATION_PROPERTIES,
                Value::Map(self.application_properties.clone()),
            )?);
        }
        out.extend_from_slice(&self.body);
        out.extend_from_slice(&self.footer);
        Ok(out)
    }
}

/// An answer from `$cbs` or `$management`.
///
/// # Errors
/// When a section cannot be encoded.
pub fn encode_reply(
    correlation_id: Value,
    application_properties: Map,
    body: Value,
) -> Result<Vec<u8>, Error> {
    let properties = vec![
        Value::Null,
        Value::Null,
        Value::Null,
        Value::Null,
        Value::Null,
        correlation_id,
    ];
    let mut out = section(PROPERTIES, Value::List(properties))?;
    out.extend(section(
        APPLICATION_PROPERTIES,
        Value::Map(application_properties),
    )?);
    out.extend(section(AMQP_VALUE, body)?);
    Ok(out)
}

/// The messages inside a batch: each data section of it is one.
///
/// # Errors
/// When a section is malformed or a data section does not hold binary.
pub fn unpack_batch(payload: &Bytes) -> Result<Vec<Bytes>, Error> {
    let mut messages = Vec::new();
    for found in sections(payload) {
        let found = found?;
        if found.code == DATA {
            match codec::decode(&payload[found.start..found.end])? {
                Value::Described(data) => match data.value {
                    Value::Binary(inner) => messages.push(Bytes::from(inner.into_vec())),
                    _ => return Err(Error::Shape("binary in a data section")),
                },
                _ => return Err(Error::Shape("a data section")),
            }
        }
    }
    Ok(messages)
}

struct Section {
    code: u64,
    start: usize,
    end: usize,
}

fn sections(payload: &[u8]) -> impl Iterator<Item = Result<Section, Error>> + '_ {
    let mut start = 0;
    std::iter::from_fn(move || {
        (start < payload.len()).then(|| {
            let bytes = &payload[start..];
            let section = codec::value_length(bytes).and_then(|length| {
                let code = section_code(bytes)?;
                Ok(Section {
                    code,
                    start,
                    end: start + length,
                })
            });
            start = section.as_ref().map_or(payload.len(), |section| section.end);
            section
        })
    })
}

fn section_code(bytes: &[u8]) -> Result<u64, Error> {
    if bytes.first() != Some(&0) {
        return Err(Error::Shape("a described section"));
    }
    let descriptor = &bytes[1..1 + codec::value_length(&bytes[1..])?];
    match codec::decode(descriptor)? {
        Value::Ulong(code) => Ok(code),
        _ => Err(Error::Shape("a numeric section descriptor")),
    }
}

fn section(code: u64, value: Value) -> Result<Vec<u8>, Error> {
    codec::encode(&Described {
        descriptor: Descriptor::Code(code),
        value,
    })
}

fn symbol(name: &str) -> Value {
    Value::Symbol(name.into())
}

fn parse_header(bytes: &[u8]) -> Result<Header, Error> {
    let (_, mut fields) = codec::described_list(codec::decode(bytes)?)?;
    let ttl = codec::integer(&codec::take(&mut fields, 2)).and_then(|ttl| u32::try_from(ttl).ok());
    Ok(Header {
        durable: codec::take(&mut fields, 0),
        priority: codec::take(&mut fields, 1),
        ttl,
    })
}

fn described_map(bytes: &[u8]) -> Result<Map, Error> {
    match codec::decode(bytes)? {
        Value::Described(described) => match described.value {
            Value::Map(map) => Ok(map),
            _ => Err(Error::Shape("a map")),
        },
        _ => Err(Error::Shape("a described map")),
    }
}

fn sender_annotations(bytes: &[u8]) -> Result<Map, Error> {
    let annotations = described_map(bytes)?;
    Ok(annotations
        .into_iter()
        .filter_map(|(key, value)| {
            let name = codec::text(&key)?;
            (!BROKER_ANNOTATIONS.contains(&name)).then(|| (symbol(name), value))
        })
        .collect())
}

/// The message-id as text, and a properties section that has one.
fn identify(properties: Option<Bytes>, fresh_id: Uuid) -> Result<(String, Bytes), Error> {
    let (mut fields, given) = match &properties {
        Some(bytes) => {
            let fields = codec::described_list(codec::decode(bytes)?)?.1;
            let given = fields.first().and_then(id_text);
            (fields, given)
        }
        None => (Vec::new(), None),
    };
    if let (Some(id), Some(bytes)) = (given, properties) {
        return Ok((id, bytes));
    }
    let id = fresh_id.simple().to_string();
    if fields.is_empty() {
        fields.push(Value::Null);
    }
    fields[0] = Value::from(id.as_str());
    Ok((id, section(PROPERTIES, Value::List(fields))?.into()))
}

fn id_text(id: &Value) -> Option<String> {
    match id {
        Value::String(id) if id.is_empty() => None,
        Value::String(id) => Some(id.clone()),
        Value::Uuid(id) => Some(Uuid::from_bytes(*id.as_inner()).to_string()),
        Value::Ulong(id) => Some(id.to_string()),
        Value::Binary(id) => Some(id.iter().map(|byte| format!("{byte:02x}")).collect()),
        _ => None,
    }
}

impl From<Moment> for Value {
    fn from(moment: Moment) -> Self {
        Value::Timestamp(Timestamp::from(moment))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{annotation, binary, delivery_count, message, nameless, section, sections};

    fn stamp() -> Stamp {
        Stamp {
            delivery_count: 0,
            enqueued: Moment::from_millis(1),
            sequence: 7,
            locked_until: None,
            state: 0,
            enqueue_sequence: None,
            dead_letter_source: None,
            lock_token: None,
        }
    }

    #[test]
    fn a_delivery_count_of_zero_is_written_out() {
        let encoded = message("a").build().encode(&stamp()).unwrap();

        assert_eq!(delivery_count(&encoded), Value::Uint(0));
    }

    #[test]
    fn body_properties_and_footer_stay_byte_for_byte() {
        let body = [section(DATA, binary(b"one")), section(DATA, binary(b"two"))].concat();
        let properties = section(
            PROPERTIES,
            Value::List(vec![Value::from("id"), Value::Null, Value::from("to")]),
        );
        let footer = section(
            FOOTER,
            Value::Map(Map::from_iter([(symbol("f"), Value::Bool(true))])),
        );
        let sent = Bytes::from([&properties[..], &body, &footer].concat());

        let encoded = Message::parse(&sent, Uuid::nil())
            .unwrap()
            .encode(&stamp())
            .unwrap();

        assert!(
            encoded.ends_with(&sent),
            "{:02x?} does not end with {:02x?}",
            encoded,
            sent
        );
    }

    #[test]
    fn every_kind_of_body_is_taken() {
        for (code, value) in [
            (DATA, binary(b"x")),
            (SEQUENCE, Value::List(vec![Value::Int(1)])),
            (AMQP_VALUE, Value::from("text")),
        ] {
            let encoded = message("a")
                .body(&[(code, value.clone())])
                .build()
                .encode(&stamp())
                .unwrap();

            assert_eq!(sections(&encoded).last(), Some(&(code, value)));
        }
    }

    #[test]
    fn a_message_without_an_id_gets_one() {
        let given = Message::parse(&nameless().encode(), Uuid::from_u128(0xab)).unwrap();

        assert_eq!(given.id(), "000000000000000000000000000000ab");
        assert_eq!(
            given.properties().unwrap()[0],
            Value::from("000000000000000000000000000000ab")
        );
    }

    #[test]
    fn ids_of_every_type_can_be_compared() {
        let uuid = Uuid::from_u128(1);
        for (id, text) in [
            (Value::Uuid(AmqpUuid::from(uuid.into_bytes())), uuid.to_string()),
            (Value::Ulong(12), "12".to_owned()),
            (binary(&[0x0a, 0xff]), "0aff".to_owned()),
        ] {
            assert_eq!(message("").id(id).build().id(), text);
        }
    }

    #[test]
    fn a_sender_cannot_forge_what_the_broker_writes() {
        let forged = message("a")
            .annotation(SEQUENCE_NUMBER, Value::Long(99))
            .annotation(LOCKED_UNTIL, Value::from(Moment::from_millis(5)))
            .annotation("x-opt-partition-key", Value::from("p"))
            .build();

        let encoded = forged.encode(&stamp()).unwrap();

        assert_eq!(annotation(&encoded, SEQUENCE_NUMBER), Some(Value::Long(7)));
        assert_eq!(annotation(&encoded, LOCKED_UNTIL), None);
        assert_eq!(
            annotation(&encoded, "x-opt-partition-key"),
            Some(Value::from("p"))
        );
    }

    #[test]
    fn a_stored_message_is_the_same_when_it_is_read_back() {
        let original = message("a")
            .property("k", "v")
            .ttl(Duration::from_secs(9))
            .annotation("mine", Value::Int(1))
            .build();

        let stored = Bytes::from(original.encode_bare().unwrap());

        assert_eq!(Message::parse(&stored, Uuid::nil()).unwrap(), original);
    }

    #[test]
    fn a_batch_is_unpacked_into_its_messages() {
        let (one, two) = (message("1").encode(), message("2").encode());
        let batch = [
            section(PROPERTIES, Value::List(vec![Value::from("1")])),
            section(DATA, binary(&one)),
            section(DATA, binary(&two)),
        ];

        assert_eq!(unpack_batch(&Bytes::from(batch.concat())).unwrap(), [one, two]);
    }

    #[rstest::rstest]
    #[case::nothing(&[])]
    #[case::no_body(&[0x00, 0x53, 0x73, 0x45])]
    #[case::not_a_section(&[0x40])]
    #[case::unknown_section(&[0x00, 0x53, 0x01, 0x45])]
    #[case::cut_short(&[0x00, 0x53, 0x75, 0xa0, 0x05, 0x01])]
    fn what_is_not_a_message_is_refused(#[case] payload: &'static [u8]) {
        assert!(Message::parse(&Bytes::from_static(payload), Uuid::nil()).is_err());
    }
}
