//! Certificates for this machine, and TLS in front of servers that have none.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::task::AbortOnDropHandle;

/// What a PostgreSQL client sends to ask for TLS: length 8, then 1234 and 5679.
/// <https://www.postgresql.org/docs/15/protocol-message-formats.html>
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
/// How long a client may take for its handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// A certificate for some names of this machine, which is its own authority.
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    acceptor: TlsAcceptor,
    _folder: TempDir,
}

impl Tls {
    /// For these host names and addresses.
    ///
    /// # Errors
    /// It cannot be made or written.
    pub fn new(names: &[&str]) -> anyhow::Result<Self> {
        let names = names.iter().map(|name| (*name).to_owned());
        let made = rcgen::generate_simple_self_signed(names.collect::<Vec<_>>())
            .context("failed to make a certificate")?;
        let folder = tempfile::tempdir().context("failed to make a folder for the certificate")?;
        let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        std::fs::write(&certificate, made.cert.pem())?;
        std::fs::write(&key, made.signing_key.serialize_pem())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_file(&certificate)?],
                PrivateKeyDer::from_pem_file(&key)?,
            )?;
        Ok(Self {
            certificate,
            key,
            acceptor: TlsAcceptor::from(Arc::new(config)),
            _folder: folder,
        })
    }

    /// The certificate, PEM; what clients are to trust.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// Its key, PEM.
    pub fn key(&self) -> &Path {
        &self.key
    }

    /// What a client of rustls needs to trust it, and nobody else.
    ///
    /// # Errors
    /// None that is known: the certificate is of our own making.
    pub fn client_config(&self) -> anyhow::Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.certificate)?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        Ok(ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth())
    }

    /// A listener behind TLS.
    pub(crate) fn listener(&self, tcp: TcpListener) -> TlsListener {
        TlsListener {
            tcp,
            acceptor: self.acceptor.clone(),
        }
    }
}

pub(crate) struct TlsListener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, address)) = self.tcp.accept().await else {
                // a client that went away, or too many files: not for ever
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            match tokio::time::timeout(HANDSHAKE, self.acceptor.accept(stream)).await {
                Ok(Ok(stream)) => return (stream, address),
                outcome => tracing::debug!(?outcome, "no handshake"),
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

/// What comes before the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// Nothing.
    Tls,
    /// PostgreSQL's request for TLS.
    Postgres,
}

/// TLS in front of a server that has none. It ends with this value.
pub struct Front {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    _serving: AbortOnDropHandle<()>,
}

impl Front {
    /// In front of the server at `target`, on a free port of `host`.
    ///
    /// # Errors
    /// It cannot listen.
    pub async fn start(tls: &Tls, speaks: Speaks, host: &str, target: String) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((host, 0))
            .await
            .with_context(|| format!("failed to listen on {host}"))?;
        let address = listener.local_addr()?;
        let acceptor = tls.acceptor.clone();
        let accepted = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&accepted);
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                let (acceptor, target) = (acceptor.clone(), target.clone());
                tokio::spawn(async move {
                    if let Err(error) = forward(client, &acceptor, speaks, &target).await {
                        tracing::debug!(error = &*error, "a forwarded connection ended");
                    }
                });
            }
        });
        Ok(Self {
            address,
            accepted,
            _serving: AbortOnDropHandle::new(serving),
        })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it has taken.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

async fn forward(
    mut client: TcpStream,
    acceptor: &TlsAcceptor,
    speaks: Speaks,
    target: &str,
) -> anyhow::Result<()> {
    client.set_nodelay(true)?;
    if speaks == Speaks::Postgres {
        let mut request = [0; SSL_REQUEST.len()];
        client.read_exact(&mut request).await?;
        anyhow::ensure!(request == SSL_REQUEST, "a client that asks for no TLS");
        client.write_all(b"S").await?;
    }
    let mut client = tokio::time::timeout(HANDSHAKE, acceptor.accept(client)).await??;
    let mut server = TcpStream::connect(target).await?;
    server.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
