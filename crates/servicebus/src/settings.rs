//! How to reach a namespace, and the times that the client allows.

use std::sync::Arc;
use std::time::Duration;

use azure_core::credentials::TokenCredential;
use backoff::Backoff;
use rustls::ClientConfig;
use secrecy::SecretString;

use crate::error::{BUSY_PAUSE, Cause};

/// A broker that is back is noticed within 5 seconds.
const RECONNECT: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5));

/// Everything that a [`crate::Client`] needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the broker is.
    pub endpoint: Endpoint,
    /// How the client proves who it is.
    pub credential: Credential,
    /// TLS with other roots than the machine's, for a broker with a private certificate.
    pub tls: Option<Arc<ClientConfig>>,
    /// Limits on waiting.
    pub timeouts: Timeouts,
    /// The pauses between attempts to connect or to attach.
    pub reconnect: Backoff,
    /// How long the client leaves the broker alone after `com.microsoft:server-busy`.
    pub busy_pause: Duration,
    /// How long a shared access signature made from a key is valid. It is renewed before it expires.
    pub sas_lifetime: Duration,
}

impl Settings {
    /// Settings with the defaults for times.
    pub fn new(endpoint: Endpoint, credential: Credential) -> Self {
        Self {
            endpoint,
            credential,
            tls: None,
            timeouts: Timeouts::default(),
            reconnect: RECONNECT,
            busy_pause: BUSY_PAUSE,
            sas_lifetime: Duration::from_secs(60 * 60),
        }
    }

    /// The pause after so many failures in a row, the latest of them for this cause.
    pub(crate) fn pause(&self, failures: u32, cause: Option<&Cause>) -> Duration {
        if cause.is_some_and(Cause::is_busy) {
            self.busy_pause
        } else {
            self.reconnect.random_delay(failures.saturating_sub(1))
        }
    }

    /// A namespace in Azure (`NAME.servicebus.windows.net`) with an Entra ID identity, over TLS. A port other
    /// than [`Endpoint::TLS_PORT`] may follow a colon.
    ///
    /// # Errors
    /// [`InvalidNamespace`].
    pub fn from_namespace(
        namespace: &str,
        credential: Arc<dyn TokenCredential>,
    ) -> Result<Self, InvalidNamespace> {
        let (host, port) = match namespace.split_once(':') {
            None => (namespace, Ok(Endpoint::TLS_PORT)),
            Some((host, port)) => (host, port.parse()),
        };
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        match port {
            Ok(port) if !host.is_empty() && host.bytes().all(allowed) => Ok(Self::new(
                Endpoint {
                    host: host.to_owned(),
                    port,
                    transport: Transport::Tls,
                },
                Credential::Token(credential),
            )),
            _ => Err(InvalidNamespace(namespace.to_owned())),
        }
    }
}

/// No namespace can have that name.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is no namespace; write it as example.servicebus.windows.net, without a scheme")]
pub struct InvalidNamespace(String);

/// Where the broker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// What is spoken beneath AMQP.
    pub transport: Transport,
}

impl Endpoint {
    /// The port of AMQP over TLS.
    pub const TLS_PORT: u16 = 5671;
    /// The port of AMQP over plain TCP.
    pub const PLAIN_PORT: u16 = 5672;

    /// `host:port`, with brackets around an IPv6 address.
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// What is spoken beneath AMQP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TLS with the machine's trusted roots.
    Tls,
    /// Plain TCP, for emulators.
    Plain,
}

/// How the client proves who it is.
#[derive(Debug, Clone)]
pub enum Credential {
    /// A shared access key, from which the client makes signatures.
    SharedAccessKey {
        /// The policy's name.
        name: String,
        /// The key, as text.
        key: SecretString,
    },
    /// A ready-made `SharedAccessSignature sr=…`; it cannot be renewed.
    SharedAccessSignature(SecretString),
    /// An Entra ID identity.
    Token(Arc<dyn TokenCredential>),
}

/// Limits on waiting; nothing in this crate waits without one, except [`crate::Receiver::recv`].
#[derive(Debug, Clone)]
pub struct Timeouts {
    /// For a TCP and TLS connection and the AMQP open.
    pub connect: Duration,
    /// For beginning a session and attaching a link.
    pub attach: Duration,
    /// For one request to `$cbs` or `$management`: put-token, settlement, lock renewal.
    pub request: Duration,
    /// For one call of [`crate::Sender::send`], waiting for a connection and retries included.
    pub send: Duration,
    /// For [`crate::Client::close`].
    pub close: Duration,
    /// A peer that is silent for this long is given up.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            attach: Duration::from_secs(10),
            request: Duration::from_secs(15),
            send: Duration::from_secs(30),
            close: Duration::from_secs(5),
            idle: Duration::from_secs(30),
        }
    }
}
