//! What an identity is made from.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use azure_core::cloud::CustomConfiguration;
use azure_core::credentials::TokenCredential;
use azure_core::http::{ClientOptions, HttpClient, RetryOptions, Transport};
use azure_identity::{ClientAssertionCredential, ClientAssertionCredentialOptions};
use reqwest::redirect::Policy;
use reqwest::tls::Certificate;
use url::Url;

use crate::assertion::TokenFile;

/// How long the token service may take to be connected to.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Who the Pod is. All but the last two are what AKS's webhook puts into its environment:
/// <https://azure.github.io/azure-workload-identity/docs/installation/mutating-admission-webhook.html>.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The managed identity's client id (`AZURE_CLIENT_ID`).
    pub client_id: Option<String>,
    /// Its tenant (`AZURE_TENANT_ID`).
    pub tenant_id: Option<String>,
    /// The file with the service account's token (`AZURE_FEDERATED_TOKEN_FILE`).
    pub token_file: Option<PathBuf>,
    /// The token service (`AZURE_AUTHORITY_HOST`), https; Azure's public one when not given.
    pub authority_host: Option<Url>,
    /// How long a caller waits for a token while the token service is away. One that is refused is told at
    /// once.
    pub patience: Duration,
    /// Certificates (PEM) of authorities to trust beside the system's.
    pub extra_authorities: Option<Vec<u8>>,
}

/// Why there can be no identity.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// A variable that belongs to it is not set.
    #[error(
        "{0} is not set, and workload identity needs it: on AKS the webhook sets it where the Pod has the label \
         azure.workload.identity/use=true and its service account the annotation azure.workload.identity/client-id"
    )]
    Missing(&'static str),
    /// The certificates given are no PEM.
    #[error("the extra certificate authorities cannot be read as PEM")]
    Authorities(#[source] reqwest::Error),
    /// The HTTP client cannot be made; most often there are no CA certificates on the system.
    #[error("the HTTP client cannot be made; are CA certificates installed?")]
    HttpClient(#[source] reqwest::Error),
    /// The SDK refuses the rest.
    #[error("the credential cannot be made")]
    Credential(#[source] azure_core::Error),
}

impl Settings {
    pub(crate) fn client_id(&self) -> Result<&str, ConfigurationError> {
        required(self.client_id.as_deref(), "AZURE_CLIENT_ID")
    }

    /// Asks once, and keeps nothing longer than the SDK itself does: until five minutes before its end.
    pub(crate) fn credential(&self) -> Result<Arc<dyn TokenCredential>, ConfigurationError> {
        let tenant = required(self.tenant_id.as_deref(), "AZURE_TENANT_ID")?;
        let file = self
            .token_file
            .clone()
            .ok_or(ConfigurationError::Missing("AZURE_FEDERATED_TOKEN_FILE"))?;
        let extra = match &self.extra_authorities {
            None => Vec::new(),
            Some(pem) => Certificate::from_pem_bundle(pem).map_err(ConfigurationError::Authorities)?,
        };
        // an own client: the SDK's panics where no CA certificates are installed
        let client: Arc<dyn HttpClient> = Arc::new(
            reqwest::Client::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .redirect(Policy::none())
                .tls_certs_merge(extra)
                .build()
                .map_err(ConfigurationError::HttpClient)?,
        );
        let mut options = ClientOptions {
            retry: RetryOptions::none(),
            transport: Some(Transport::new(client)),
            ..ClientOptions::default()
        };
        if let Some(host) = &self.authority_host {
            let mut cloud = CustomConfiguration::default();
            cloud.authority_host = host.to_string();
            options.cloud = Some(Arc::new(cloud.into()));
        }
        let options = ClientAssertionCredentialOptions {
            client_options: options,
        };
        let credential = ClientAssertionCredential::new(
            tenant.to_owned(),
            self.client_id()?.to_owned(),
            TokenFile(file),
            Some(options),
        );
        Ok(credential.map_err(ConfigurationError::Credential)?)
    }
}

fn required<'a>(value: Option<&'a str>, variable: &'static str) -> Result<&'a str, ConfigurationError> {
    value
        .filter(|value| !value.is_empty())
        .ok_or(ConfigurationError::Missing(variable))
}
