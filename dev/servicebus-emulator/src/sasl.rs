//! The SASL dialogue at the beginning of a connection: AMQP 1.0 part 5, section 5.3
//! <https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-security-v1.0-os.html>.

use bytes::BytesMut;
use fe2o3_amqp_types::sasl::{SaslCode, SaslInit, SaslMechanisms, SaslOutcome};
use serde_amqp::primitives::{Array, Binary, Symbol};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{
    codec,
    frame::{self, Layer, MIN_MAX_FRAME_SIZE, SASL_HEADER},
    keys::Keys,
};

/// What the service offers, in its order.
const MECHANISMS: [&str; 4] = ["MSSBCBS", "PLAIN", "ANONYMOUS", "EXTERNAL"];

/// Who came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// Nobody yet: rights come by tokens put to `$cbs`.
    Anonymous,
    /// The holder of the key.
    KeyHolder,
}

/// Why nobody came in.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection broke.
    #[error("the connection broke during SASL")]
    Io(#[from] std::io::Error),
    /// The client began with another protocol.
    #[error("the client began with the bytes {0:02x?}, not with SASL")]
    Header([u8; 8]),
    /// No frame.
    #[error("failed to read a SASL frame")]
    Frame(#[from] frame::Error),
    /// The client left.
    #[error("the client left during SASL")]
    Closed,
    /// A frame that is not sasl-init.
    #[error("failed to convert a SASL frame")]
    Codec(#[from] codec::Error),
    /// An unknown mechanism, or a wrong key.
    #[error("the client's SASL {0} was refused")]
    Refused(String),
}

/// Leads the dialogue up to the outcome. The AMQP header is left to the caller.
///
/// # Errors
/// See [`Error`]; the stream is of no more use then.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    keys: &Keys,
) -> Result<Identity, Error> {
    let mut header = [0; 8];
    stream.read_exact(&mut header).await?;
    stream.write_all(&SASL_HEADER).await?;
    if header != SASL_HEADER {
        return Err(Error::Header(header));
    }
    let mechanisms = Array::from(MECHANISMS.map(Symbol::from).to_vec());
    send(
        stream,
        &SaslMechanisms {
            sasl_server_mechanisms: mechanisms,
        },
    )
    .await?;

    let init = frame::read(stream, Layer::Sasl, MIN_MAX_FRAME_SIZE)
        .await?
        .ok_or(Error::Closed)?;
    let init: SaslInit = serde_amqp::from_slice(&init.body).map_err(codec::Error::Decode)?;
    let identity = match init.mechanism.as_str() {
        // The initial response means nothing here; each SDK sends another.
        "ANONYMOUS" | "MSSBCBS" | "EXTERNAL" => Some(Identity::Anonymous),
        "PLAIN" => init
            .initial_response
            .filter(|response| is_key(response, keys))
            .map(|_| Identity::KeyHolder),
        _ => None,
    };
    let Some(identity) = identity else {
        send(
            stream,
            &SaslOutcome {
                code: SaslCode::Auth,
                additional_data: None,
            },
        )
        .await?;
        return Err(Error::Refused(init.mechanism.into_inner()));
    };
    let welcome = Some(Binary::from(b"Welcome!".to_vec()));
    send(
        stream,
        &SaslOutcome {
            code: SaslCode::Ok,
            additional_data: welcome,
        },
    )
    .await?;
    Ok(identity)
}

/// `[authorization identity] NUL key name NUL key`: <https://www.rfc-editor.org/rfc/rfc4616>.
fn is_key(response: &[u8], keys: &Keys) -> bool {
    let Ok(text) = std::str::from_utf8(response) else {
        return false;
    };
    let mut parts = text.split('\0').skip(1);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(name), Some(key), None) => keys.check_plain(name, key),
        _ => false,
    }
}

async fn send<S: AsyncWrite + Unpin, T: serde::Serialize>(
    stream: &mut S,
    performative: &T,
) -> Result<(), Error> {
    let mut out = BytesMut::new();
    frame::write(&mut out, Layer::Sasl, 0, performative, &[])?;
    stream.write_all(&out).await?;
    Ok(())
}
