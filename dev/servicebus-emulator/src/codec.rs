//! The little of the AMQP type system that the emulator needs beyond `serde_amqp`: how long one encoded
//! value is, so that payloads can be cut into sections without touching what a sender wrote, and
//! access to described lists as plain values.
//!
//! Encodings: AMQP 1.0 part 1, section 1.2 <https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-types-v1.0-os.html>.

use serde::Serialize;
use serde_amqp::{Value, descriptor::Descriptor};

/// Descriptors may themselves be described; nothing in AMQP 1.0 nests them deeper than this.
const MAX_DESCRIPTOR_DEPTH: usize = 4;

/// Why bytes could not be read as AMQP, or a value not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes end within a value.
    #[error("the bytes end in the middle of a value")]
    Truncated,
    /// A format code that AMQP 1.0 does not define, or descriptors nested too deeply.
    #[error("format code {0:#04x} is not one of AMQP 1.0")]
    FormatCode(u8),
    /// A value of another shape than the protocol asks for.
    #[error("expected {0}")]
    Shape(&'static str),
    /// `serde_amqp` could not decode.
    #[error("failed to decode a value")]
    Decode(#[source] serde_amqp::Error),
    /// `serde_amqp` could not encode.
    #[error("failed to encode a value")]
    Encode(#[source] serde_amqp::Error),
}

/// The number of bytes that the first encoded value in `bytes` takes up.
///
/// # Errors
/// [`Error::Truncated`] and [`Error::FormatCode`].
pub fn value_length(bytes: &[u8]) -> Result<usize, Error> {
    length_at_depth(bytes, 0)
}

fn length_at_depth(bytes: &[u8], depth: usize) -> Result<usize, Error> {
    let code = *bytes.first().ok_or(Error::Truncated)?;
    let length = match code >> 4 {
        0x0 if code == 0 && depth < MAX_DESCRIPTOR_DEPTH => {
            let descriptor = length_at_depth(&bytes[1..], depth + 1)?;
            let value = bytes.get(1 + descriptor..).ok_or(Error::Truncated)?;
            1 + descriptor + length_at_depth(value, depth + 1)?
        }
        0x4 => 1,
        0x5 => 2,
        0x6 => 3,
        0x7 => 5,
        0x8 => 9,
        0x9 => 17,
        0xa | 0xc | 0xe => 2 + usize::from(*bytes.get(1).ok_or(Error::Truncated)?),
        0xb | 0xd | 0xf => {
            let size = bytes
                .get(1..5)
                .and_then(|size| size.try_into().ok())
                .ok_or(Error::Truncated)?;
            5usize.saturating_add(u32::from_be_bytes(size) as usize)
        }
        _ => return Err(Error::FormatCode(code)),
    };
    if length > bytes.len() {
        Err(Error::Truncated)
    } else {
        Ok(length)
    }
}

/// Decodes one value.
///
/// # Errors
/// [`Error::Decode`].
pub fn decode(bytes: &[u8]) -> Result<Value, Error> {
    serde_amqp::from_slice(bytes).map_err(Error::Decode)
}

/// Encodes one value.
///
/// # Errors
/// [`Error::Encode`].
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, Error> {
    serde_amqp::to_vec(value).map_err(Error::Encode)
}

/// The numeric descriptor and the fields of a described list, such as a performative or an outcome.
///
/// # Errors
/// [`Error::Shape`] for anything else, also for symbolic descriptors, which no Service Bus client sends.
pub fn described_list(value: Value) -> Result<(u64, Vec<Value>), Error> {
    let Value::Described(described) = value else {
        return Err(Error::Shape("a described list"));
    };
    match (described.descriptor, described.value) {
        (Descriptor::Code(code), Value::List(fields)) => Ok((code, fields)),
        _ => Err(Error::Shape("a list with a numeric descriptor")),
    }
}

/// Takes the field at `index` out of a list's fields; trailing fields that were left out are null.
pub fn take(fields: &mut [Value], index: usize) -> Value {
    fields.get_mut(index).map(std::mem::take).unwrap_or_default()
}

/// The text of a string or symbol: senders mix the two.
pub fn text(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text),
        Value::Symbol(symbol) => Some(symbol.as_str()),
        _ => None,
    }
}

/// An integer of any AMQP width.
pub fn integer(value: &Value) -> Option<i64> {
    match *value {
        Value::Ubyte(n) => Some(n.into()),
        Value::Ushort(n) => Some(n.into()),
        Value::Uint(n) => Some(n.into()),
        Value::Ulong(n) => i64::try_from(n).ok(),
        Value::Byte(n) => Some(n.into()),
        Value::Short(n) => Some(n.into()),
        Value::Int(n) => Some(n.into()),
        Value::Long(n) => Some(n),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::null(&[0x40], 1)]
    #[case::small_uint(&[0x52, 7, 0xff], 2)]
    #[case::ushort(&[0x60, 0, 1], 3)]
    #[case::uint(&[0x70, 0, 0, 0, 1], 5)]
    #[case::timestamp(&[0x83, 0, 0, 0, 0, 0, 0, 0, 1], 9)]
    #[case::uuid(&[0x98, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 17)]
    #[case::short_string(&[0xa1, 2, b'h', b'i', b'!'], 4)]
    #[case::long_binary(&[0xb0, 0, 0, 0, 1, 9, 9], 6)]
    #[case::empty_list(&[0x45, 0x45], 1)]
    #[case::short_list(&[0xc0, 2, 1, 0x40], 4)]
    #[case::long_array(&[0xf0, 0, 0, 0, 5, 0, 0, 0, 0, 0x40], 10)]
    #[case::described(&[0x00, 0x53, 0x24, 0x45, 1], 4)]
    fn a_value_is_as_long_as_its_format_code_says(#[case] bytes: &[u8], #[case] length: usize) {
        assert_eq!(value_length(bytes).unwrap(), length);
    }

    #[rstest]
    #[case::nothing(&[])]
    #[case::short_string(&[0xa1, 3, b'h'])]
    #[case::size_missing(&[0xb0, 0, 0])]
    #[case::huge(&[0xb0, 0xff, 0xff, 0xff, 0xff])]
    #[case::descriptor_only(&[0x00, 0x53, 0x24])]
    fn a_value_that_ends_early_is_refused(#[case] bytes: &[u8]) {
        assert!(matches!(value_length(bytes), Err(Error::Truncated)));
    }

    #[test]
    fn endless_descriptors_are_refused() {
        assert!(matches!(value_length(&[0; 100_000]), Err(Error::FormatCode(0))));
    }

    #[test]
    fn string_keys_in_an_outcome_are_read_like_symbols() {
        assert_eq!(text(&Value::from("a")), text(&Value::Symbol("a".into())));
    }
}
