//! The byte stream beneath AMQP: TCP, with TLS over it unless the broker is an emulator.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::error::Cause;
use crate::settings::{Endpoint, Transport};

/// What the AMQP library needs of a stream.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Debug + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Debug + Send + Unpin> Stream for T {}

/// Connects, without a time-out of its own.
pub(crate) async fn connect(endpoint: &Endpoint) -> Result<Box<dyn Stream>, Cause> {
    let tcp = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
    // Each AMQP frame is a small write of its own: with Nagle's algorithm a settlement waits for the peer's
    // delayed acknowledgement, 40 ms each.
    tcp.set_nodelay(true)?;
    match endpoint.transport {
        Transport::Plain => Ok(Box::new(tcp)),
        Transport::Tls => {
            let name =
                ServerName::try_from(endpoint.host.clone()).map_err(|error| Cause::Tls(error.to_string()))?;
            let connector = TlsConnector::from(Arc::new(tls_config()?));
            match connector.connect(name, tcp).await {
                Ok(stream) => Ok(Box::new(stream)),
                // rustls wraps its own verdicts (a bad certificate, no common version) into this kind.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    Err(Cause::Tls(error.to_string()))
                }
                Err(error) => Err(error.into()),
            }
        }
    }
}

/// TLS by the process's installed provider and the machine's trusted roots.
fn tls_config() -> Result<ClientConfig, Cause> {
    let builder = match rustls::crypto::CryptoProvider::get_default() {
        Some(provider) => ClientConfig::builder_with_provider(Arc::clone(provider)),
        None => ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider())),
    };
    Ok(builder
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_platform_verifier())
        .map_err(|error| Cause::Tls(error.to_string()))?
        .with_no_client_auth())
}
