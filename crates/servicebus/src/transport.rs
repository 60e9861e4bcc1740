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
use crate::settings::{Settings, Transport};

/// What the AMQP library needs of a stream.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Debug + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Debug + Send + Unpin> Stream for T {}

/// Connects, without a time-out of its own.
pub(crate) async fn connect(settings: &Settings) -> Result<Box<dyn Stream>, Cause> {
    let endpoint = &settings.endpoint;
    let tcp = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
    // Each AMQP frame is a small write of its own: with Nagle's algorithm a settlement waits for the peer's
    // delayed acknowledgement, 40 ms each.
    tcp.set_nodelay(true)?;
    match endpoint.transport {
        Transport::Plain => Ok(Box::new(tcp)),
        Transport::Tls => {
            let name =
                ServerName::try_from(endpoint.host.clone()).map_err(|error| Cause::Tls(error.to_string()))?;
            let config = match &settings.tls {
                Some(config) => Arc::clone(config),
                None => Arc::new(machine_roots()?),
            };
            match TlsConnector::from(config).connect(name, tcp).await {
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
fn machine_roots() -> Result<ClientConfig, Cause> {
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

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::{RootCertStore, ServerConfig};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::error::Recovery;
    use crate::settings::{Credential, Endpoint};

    /// A TLS server for `localhost` that greets, and its certificate.
    async fn a_server() -> (u16, CertificateDer<'static>) {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (tcp, _) = listener.accept().await.unwrap();
            // Fails when the client refuses the certificate.
            if let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(tcp).await {
                stream.write_all(b"hello").await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        (port, cert.der().clone())
    }

    fn settings(host: &str, port: u16, roots: Option<CertificateDer<'static>>) -> Settings {
        let endpoint = Endpoint {
            host: host.to_owned(),
            port,
            transport: Transport::Tls,
        };
        let mut settings = Settings::new(endpoint, Credential::SharedAccessSignature("unused".into()));
        settings.tls = roots.map(|root| {
            let mut roots = RootCertStore::empty();
            roots.add(root).unwrap();
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            Arc::new(
                ClientConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()
                    .unwrap()
                    .with_root_certificates(roots)
                    .with_no_client_auth(),
            )
        });
        settings
    }

    #[tokio::test]
    async fn broker_with_a_trusted_certificate_is_talked_to() {
        let (port, certificate) = a_server().await;

        let mut stream = connect(&settings("localhost", port, Some(certificate)))
            .await
            .unwrap();

        let mut greeting = String::new();
        stream.read_to_string(&mut greeting).await.unwrap();
        assert_eq!(greeting, "hello");
    }

    #[tokio::test]
    async fn certificate_that_the_machine_does_not_trust_is_refused_for_good() {
        let (port, _) = a_server().await;

        let refused = connect(&settings("localhost", port, None)).await.unwrap_err();

        assert!(matches!(refused, Cause::Tls(_)), "{refused:?}");
        assert_eq!(refused.recovery(), Recovery::Never);
    }

    #[tokio::test]
    async fn certificate_of_another_host_is_refused() {
        let (port, certificate) = a_server().await;

        let refused = connect(&settings("127.0.0.1", port, Some(certificate)))
            .await
            .unwrap_err();

        assert!(matches!(refused, Cause::Tls(_)), "{refused:?}");
    }

    #[tokio::test]
    async fn nobody_listening_is_an_io_error() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);

        let refused = connect(&settings("127.0.0.1", port, None)).await.unwrap_err();

        assert!(matches!(refused, Cause::Io(_)), "{refused:?}");
    }
}
