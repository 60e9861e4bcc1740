//! Frames on the wire: AMQP 1.0 part 2, sections 2.2 and 2.3
//! <https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-transport-v1.0-os.html>.

use bytes::{BufMut, Bytes, BytesMut};
use fe2o3_amqp_types::performatives::Performative;
use serde::Serialize;
use serde_amqp::{Value, described::Described, descriptor::Descriptor};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::codec;

/// The header that opens the AMQP layer.
pub const AMQP_HEADER: [u8; 8] = *b"AMQP\x00\x01\x00\x00";
/// The header that opens the SASL layer.
pub const SASL_HEADER: [u8; 8] = *b"AMQP\x03\x01\x00\x00";

/// The largest frame that the service takes and sends.
pub const MAX_FRAME_SIZE: u32 = 65_536;
/// Before `open` no frame may be larger than what every peer must take.
pub const MIN_MAX_FRAME_SIZE: u32 = 512;
/// Size, data offset, type and channel.
pub const FRAME_HEADER: usize = 8;

/// What kind of body a frame has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// A performative, perhaps with a payload.
    Amqp = 0,
    /// Part of the SASL dialogue.
    Sasl = 1,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The channel, which is a session.
    pub channel: u16,
    /// A performative and its payload; empty for a keep-alive.
    pub body: Bytes,
}

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection broke, or ended in the middle of a frame.
    #[error("failed to read from the connection")]
    Read(#[source] std::io::Error),
    /// A frame larger than agreed, or smaller than its own header.
    #[error("a frame of {0} bytes")]
    Size(u32),
    /// A frame of another layer.
    #[error("a frame of type {0}")]
    Layer(u8),
}

/// Reads one frame; `None` when the peer closed the stream between frames.
///
/// # Errors
/// See [`Error`].
///
/// # Cancel safety
/// Not cancel safe: bytes read so far are lost. Keep it in a task of its own.
pub async fn read<R: AsyncRead + Unpin>(
    reader: &mut R,
    layer: Layer,
    max_size: u32,
) -> Result<Option<Frame>, Error> {
    let mut header = [0; FRAME_HEADER];
    if reader.read(&mut header[..1]).await.map_err(Error::Read)? == 0 {
        return Ok(None);
    }
    reader.read_exact(&mut header[1..]).await.map_err(Error::Read)?;
    let size = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
    let body_offset = usize::from(header[4]) * 4;
    if size > max_size || body_offset < FRAME_HEADER || (size as usize) < body_offset {
        return Err(Error::Size(size));
    }
    if header[5] != layer as u8 {
        return Err(Error::Layer(header[5]));
    }
    let mut rest = BytesMut::zeroed(size as usize - FRAME_HEADER);
    reader.read_exact(&mut rest).await.map_err(Error::Read)?;
    let channel = u16::from_be_bytes([header[6], header[7]]);
    Ok(Some(Frame {
        channel,
        body: rest.freeze().slice(body_offset - FRAME_HEADER..),
    }))
}

/// Appends a frame with a performative, all of its fields written out, to `out`. The types leave out trailing
/// nulls, as they may, but Python clients before 7.15 look fields up by position and fail on a short list.
///
/// # Errors
/// When the performative cannot be encoded; `out` is unchanged.
pub fn write_performative(
    out: &mut BytesMut,
    channel: u16,
    performative: &Performative,
) -> Result<(), codec::Error> {
    let fields = match performative {
        Performative::Open(_) => 10,
        Performative::Begin(_) => 8,
        Performative::Attach(_) => 14,
        Performative::Detach(_) => 3,
        Performative::End(_) | Performative::Close(_) => 1,
        Performative::Flow(_) | Performative::Transfer(_) | Performative::Disposition(_) => {
            return write(out, Layer::Amqp, channel, performative, &[]);
        }
    };
    let (code, mut list) = codec::described_list(codec::decode(&codec::encode(performative)?)?)?;
    list.resize(fields, Value::Null);
    let padded = Described {
        descriptor: Descriptor::Code(code),
        value: Value::List(list),
    };
    write(out, Layer::Amqp, channel, &padded, &[])
}

/// Appends a frame to `out`.
///
/// # Errors
/// When the performative cannot be encoded; `out` is unchanged.
pub fn write<T: Serialize>(
    out: &mut BytesMut,
    layer: Layer,
    channel: u16,
    performative: &T,
    payload: &[u8],
) -> Result<(), codec::Error> {
    let performative = codec::encode(performative)?;
    let size = FRAME_HEADER + performative.len() + payload.len();
    out.reserve(size);
    out.put_u32(u32::try_from(size).map_err(|_| codec::Error::Shape("a frame below 4 GiB"))?);
    out.put_u8(2);
    out.put_u8(layer as u8);
    out.put_u16(channel);
    out.put_slice(&performative);
    out.put_slice(payload);
    Ok(())
}

/// Appends an empty frame, which says only that this side is alive.
pub fn write_keep_alive(out: &mut BytesMut) {
    out.put_slice(&[0, 0, 0, 8, 2, 0, 0, 0]);
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[tokio::test]
    async fn a_frame_that_was_written_is_read_back() {
        let mut out = BytesMut::new();
        write(&mut out, Layer::Amqp, 7, &Value::Null, b"payload").unwrap();
        write_keep_alive(&mut out);

        let mut wire = &out[..];
        let first = read(&mut wire, Layer::Amqp, MAX_FRAME_SIZE)
            .await
            .unwrap()
            .unwrap();
        let second = read(&mut wire, Layer::Amqp, MAX_FRAME_SIZE)
            .await
            .unwrap()
            .unwrap();
        let end = read(&mut wire, Layer::Amqp, MAX_FRAME_SIZE).await.unwrap();

        assert_eq!(
            first,
            Frame {
                channel: 7,
                body: Bytes::from_static(b"\x40payload")
            }
        );
        assert_eq!(
            second,
            Frame {
                channel: 0,
                body: Bytes::new()
            }
        );
        assert_eq!(end, None);
    }

    #[tokio::test]
    async fn an_extended_header_is_skipped() {
        let mut wire = &[0, 0, 0, 13, 3, 0, 0, 1, 9, 9, 9, 9, 0x40][..];

        let frame = read(&mut wire, Layer::Amqp, MAX_FRAME_SIZE)
            .await
            .unwrap()
            .unwrap();

        assert_eq!(
            frame,
            Frame {
                channel: 1,
                body: Bytes::from_static(&[0x40])
            }
        );
    }

    #[rstest]
    #[case::too_large(&[0, 2, 0, 0, 2, 0, 0, 0])]
    #[case::smaller_than_its_header(&[0, 0, 0, 4, 2, 0, 0, 0])]
    #[case::offset_past_the_end(&[0, 0, 0, 8, 9, 0, 0, 0])]
    #[case::another_layer(&[0, 0, 0, 8, 2, 1, 0, 0])]
    #[case::cut_short(&[0, 0, 0, 9, 2, 0, 0, 0])]
    #[tokio::test]
    async fn a_malformed_frame_is_refused(#[case] mut wire: &[u8]) {
        assert!(read(&mut wire, Layer::Amqp, MAX_FRAME_SIZE).await.is_err());
    }
}
