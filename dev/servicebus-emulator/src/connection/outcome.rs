//! Outcomes as receivers send them, read without `fe2o3-amqp-types`: its typed outcomes refuse the string keys
//! that the Go SDK puts where AMQP asks for symbols.

use fe2o3_amqp_types::{
    definitions,
    messaging::{Accepted, DeliveryState, Modified, Rejected, Released},
};
use serde_amqp::{Value, primitives::OrderedMap};

use crate::{
    broker::Refusal,
    codec::{self, Error},
    message::Map,
    queue::Settlement,
};

const DISPOSITION: u64 = 0x15;
const ERROR: u64 = 0x1d;
const ACCEPTED: u64 = 0x24;
const REJECTED: u64 = 0x25;
const RELEASED: u64 = 0x26;
const MODIFIED: u64 = 0x27;

const DEAD_LETTER: &str = "com.microsoft:dead-letter";

/// A receiver's disposition.
#[derive(Debug, Clone, PartialEq)]
pub struct Disposition {
    /// Whether it is from a receiver. Senders' dispositions say nothing that a broker needs.
    pub from_receiver: bool,
    /// The first delivery that it is about.
    pub first: u32,
    /// The last.
    pub last: u32,
    /// Whether the receiver is done and wants no answer.
    pub settled: bool,
    /// What becomes of the messages; nothing when there is no terminal outcome.
    pub outcome: Option<Outcome>,
}

/// A terminal outcome.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// What it means here.
    pub settlement: Settlement,
    kind: u64,
}

/// Whether a frame's body is a disposition.
pub fn is_disposition(body: &[u8]) -> bool {
    // smallulong and ulong are the only encodings in use.
    body.starts_with(&[0, 0x53, 0x15]) || body.starts_with(&[0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x15])
}

impl Disposition {
    /// Reads a disposition.
    ///
    /// # Errors
    /// When it is not one.
    pub fn parse(body: &[u8]) -> Result<Self, Error> {
        let (code, mut fields) = codec::described_list(codec::decode(body)?)?;
        if code != DISPOSITION {
            return Err(Error::Shape("a disposition"));
        }
        let number = |value: Value| match value {
            Value::Uint(number) => Some(number),
            _ => None,
        };
        let first = number(codec::take(&mut fields, 1)).ok_or(Error::Shape("a first delivery-id"))?;
        Ok(Self {
            from_receiver: codec::take(&mut fields, 0) == Value::Bool(true),
            first,
            last: number(codec::take(&mut fields, 2)).unwrap_or(first),
            settled: codec::take(&mut fields, 3) == Value::Bool(true),
            outcome: match codec::take(&mut fields, 4) {
                Value::Null => None,
                state => Outcome::parse(state)?,
            },
        })
    }

    /// Whether a delivery is among those that it is about; delivery-ids wrap around.
    pub fn covers(&self, delivery_id: u32) -> bool {
        delivery_id.wrapping_sub(self.first) <= self.last.wrapping_sub(self.first)
    }
}

impl Outcome {
    fn parse(state: Value) -> Result<Option<Self>, Error> {
        let (kind, mut fields) = codec::described_list(state)?;
        let settlement = match kind {
            ACCEPTED => Settlement::Complete,
            RELEASED => Settlement::Release,
            MODIFIED => {
                // delivery-failed differs between the SDKs for one and the same call, so it is not looked at.
                let defer = codec::take(&mut fields, 1) == Value::Bool(true);
                let modify = map(codec::take(&mut fields, 2));
                if defer {
                    Settlement::Defer { modify }
                } else {
                    Settlement::Abandon { modify }
                }
            }
            REJECTED => rejected(codec::take(&mut fields, 0))?,
            _ => return Ok(None),
        };
        Ok(Some(Self { settlement, kind }))
    }

    /// The answer that says it was done: the same outcome, bare. An error in it would mean failure.
    pub fn confirmation(&self) -> DeliveryState {
        match self.kind {
            RELEASED => DeliveryState::Released(Released {}),
            REJECTED => DeliveryState::Rejected(Rejected { error: None }),
            MODIFIED => DeliveryState::Modified(Modified {
                delivery_failed: None,
                undeliverable_here: None,
                message_annotations: None,
            }),
            _ => DeliveryState::Accepted(Accepted {}),
        }
    }
}

/// A refusal as an outcome.
pub fn refusal(refusal: &Refusal) -> DeliveryState {
    DeliveryState::Rejected(Rejected {
        error: Some(error(refusal)),
    })
}

/// A refusal as an AMQP error. All three fields are written: the Python SDK fails without the last.
pub fn error(refusal: &Refusal) -> definitions::Error {
    definitions::Error {
        condition: definitions::ErrorCondition::Custom(refusal.condition.as_str().into()),
        description: Some(refusal.description.clone()),
        info: Some(Box::new(OrderedMap::new())),
    }
}

fn rejected(error: Value) -> Result<Settlement, Error> {
    if error == Value::Null {
        return Ok(Settlement::dead_letter(None, None, Map::new()));
    }
    let (code, mut fields) = codec::described_list(error)?;
    if code != ERROR {
        return Err(Error::Shape("an error in a rejected outcome"));
    }
    let condition = codec::take(&mut fields, 0);
    let description = codec::take(&mut fields, 1);
    let info = map(codec::take(&mut fields, 2));
    Ok(match codec::text(&condition) {
        // The SDKs put everything into the map.
        Some(DEAD_LETTER) | None => Settlement::DeadLetter { modify: info },
        Some(condition) => Settlement::dead_letter(Some(condition), codec::text(&description), info),
    })
}

/// A map with keys of either kind, as one with strings, without nulls.
fn map(value: Value) -> Map {
    match value {
        Value::Map(map) => map
            .into_iter()
            .filter(|(_, value)| *value != Value::Null)
            .filter_map(|(key, value)| Some((Value::from(codec::text(&key)?), value)))
            .collect(),
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_amqp::{described::Described, descriptor::Descriptor, primitives::Symbol};

    use super::*;

    fn described(code: u64, fields: Vec<Value>) -> Value {
        Value::Described(Box::new(Described {
            descriptor: Descriptor::Code(code),
            value: Value::List(fields),
        }))
    }

    fn disposition(outcome: Value) -> Disposition {
        let fields = vec![
            Value::Bool(true),
            Value::Uint(4),
            Value::Null,
            Value::Bool(false),
            outcome,
        ];
        let bytes = codec::encode(&described(DISPOSITION, fields)).unwrap();
        assert!(is_disposition(&bytes));
        Disposition::parse(&bytes).unwrap()
    }

    fn entry(key: Value, value: &str) -> Value {
        Value::Map(Map::from_iter([(key, Value::from(value))]))
    }

    #[rstest]
    #[case::accepted(ACCEPTED, vec![], Settlement::Complete)]
    #[case::released(RELEASED, vec![], Settlement::Release)]
    #[case::abandoned_by_python(MODIFIED, vec![Value::Bool(true), Value::Bool(false)], Settlement::Abandon { modify: Map::new() })]
    #[case::abandoned_by_go(MODIFIED, vec![Value::Bool(false), Value::Bool(false)], Settlement::Abandon { modify: Map::new() })]
    #[case::abandoned_by_javascript(MODIFIED, vec![], Settlement::Abandon { modify: Map::new() })]
    #[case::deferred(MODIFIED, vec![Value::Null, Value::Bool(true)], Settlement::Defer { modify: Map::new() })]
    fn an_outcome_means(#[case] code: u64, #[case] fields: Vec<Value>, #[case] meant: Settlement) {
        assert_eq!(
            disposition(described(code, fields)).outcome.unwrap().settlement,
            meant
        );
    }

    #[rstest]
    #[case::symbol(Value::Symbol(Symbol::from("DeadLetterReason")))]
    #[case::string_as_go_sends_it(Value::from("DeadLetterReason"))]
    fn a_dead_letter_reason_is_read_from_either_kind_of_key(#[case] key: Value) {
        let error = described(
            ERROR,
            vec![
                Value::Symbol(Symbol::from(DEAD_LETTER)),
                Value::Null,
                entry(key, "bad"),
            ],
        );

        let outcome = disposition(described(REJECTED, vec![error])).outcome.unwrap();

        assert_eq!(
            outcome.settlement,
            Settlement::dead_letter(Some("bad"), None, Map::new())
        );
        assert_eq!(
            outcome.confirmation(),
            DeliveryState::Rejected(Rejected { error: None })
        );
    }

    #[test]
    fn another_error_condition_becomes_the_reason() {
        let error = described(
            ERROR,
            vec![Value::Symbol(Symbol::from("my:reason")), Value::from("why")],
        );

        let outcome = disposition(described(REJECTED, vec![error])).outcome.unwrap();

        assert_eq!(
            outcome.settlement,
            Settlement::dead_letter(Some("my:reason"), Some("why"), Map::new())
        );
    }

    #[test]
    fn a_range_covers_its_ends_and_may_wrap_around() {
        let range = Disposition {
            first: u32::MAX,
            last: 1,
            ..disposition(Value::Null)
        };

        let covered: Vec<_> = [u32::MAX - 1, u32::MAX, 0, 1, 2]
            .into_iter()
            .filter(|id| range.covers(*id))
            .collect();

        assert_eq!(covered, [u32::MAX, 0, 1]);
    }
}
