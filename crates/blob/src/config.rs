//! What a [`crate::BlobStore`] is made from.

use std::fmt;
use std::sync::Arc;

use azure_core::credentials::TokenCredential;
use secrecy::SecretString;
use url::Url;

use crate::connection_string::ConnectionStringError;
use crate::retry::RetryProfile;

/// Where the blobs are and how to log in there.
#[derive(Clone, Debug)]
pub struct BlobConfig {
    /// Who we are.
    pub credential: Credential,
    /// The one container that is used.
    pub container: String,
    /// The blob service's endpoint as readers of signed URLs reach it, with the account in its path when
    /// the address is path-style. None: the same as ours.
    pub public_endpoint: Option<Url>,
    /// How long a call is tried.
    pub retry: RetryProfile,
    /// Certificates (PEM) of authorities to trust beside the system's.
    pub extra_authorities: Option<Vec<u8>>,
}

impl BlobConfig {
    /// The configuration with nothing but what cannot be guessed; [`RetryProfile::Patient`].
    pub fn new(credential: Credential, container: impl Into<String>) -> Self {
        Self {
            credential,
            container: container.into(),
            public_endpoint: None,
            retry: RetryProfile::Patient,
            extra_authorities: None,
        }
    }
}

/// Who we are to the storage account.
#[derive(Clone)]
pub enum Credential {
    /// A connection string with an account key; `UseDevelopmentStorage=true` too.
    ConnectionString(SecretString),
    /// Entra ID tokens.
    Token {
        /// The account's blob endpoint; https.
        endpoint: Url,
        /// Where they come from.
        credential: Arc<dyn TokenCredential>,
    },
}

impl Credential {
    /// The one choice that every program makes: the connection string when there is one, else the
    /// identity's tokens at the endpoint.
    ///
    /// # Errors
    /// [`ConfigurationError::NoCredential`] when there is neither.
    pub fn choose(
        connection_string: Option<SecretString>,
        endpoint: Option<Url>,
        identity: Option<Arc<dyn TokenCredential>>,
    ) -> Result<Self, ConfigurationError> {
        match (connection_string, endpoint, identity) {
            (Some(text), _, _) => Ok(Self::ConnectionString(text)),
            (None, Some(endpoint), Some(credential)) => Ok(Self::Token { endpoint, credential }),
            (None, _, _) => Err(ConfigurationError::NoCredential),
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConnectionString(_) => f.write_str("ConnectionString([REDACTED])"),
            Self::Token { endpoint, .. } => write!(f, "Token({endpoint})"),
        }
    }
}

/// Why a [`crate::BlobStore`] cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// Neither way to log in was given.
    #[error("neither a storage connection string nor a blob endpoint is given; give one of them")]
    NoCredential,
    /// The connection string cannot be used.
    #[error("the storage connection string cannot be used")]
    ConnectionString(#[from] ConnectionStringError),
    /// The endpoint is no http(s) URL, or http where a token would be sent, or names no account.
    #[error("'{endpoint}' cannot be a blob endpoint: {problem}")]
    Endpoint {
        /// The endpoint.
        endpoint: Box<Url>,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The container's name breaks Azure's rules.
    #[error(
        "'{0}' cannot be a container: 3 to 63 lower-case letters, digits and single hyphens, beginning and ending with a letter or digit"
    )]
    ContainerName(String),
    /// The certificates given are no PEM.
    #[error("the extra certificate authorities cannot be read as PEM")]
    Authorities(#[source] reqwest::Error),
    /// The HTTP client cannot be made; most often there are no CA certificates on the system.
    #[error("the HTTP client cannot be made; are CA certificates installed?")]
    HttpClient(#[source] reqwest::Error),
    /// The SDK refuses the rest.
    #[error("the blob client cannot be made")]
    Client(#[source] azure_core::Error),
}
