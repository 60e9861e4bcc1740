//! The HTTP client under the SDK.

use std::sync::Arc;

use azure_core::http::{ClientOptions, HttpClient, RetryOptions, Transport};
use reqwest::redirect::Policy;
use reqwest::tls::Certificate;

use crate::config::{BlobConfig, ConfigurationError};
use crate::retry::RetryProfile;

/// An own client in place of the SDK's, which panics where no CA certificates are installed, even when
/// only http is spoken.
///
/// # Errors
/// The certificates cannot be read, or there are none.
pub(crate) fn http_client(
    config: &BlobConfig,
    https: bool,
) -> Result<Arc<dyn HttpClient>, ConfigurationError> {
    let mut builder = reqwest::Client::builder()
        .connect_timeout(config.retry.connect_timeout())
        .read_timeout(config.retry.read_timeout())
        // a storage service never redirects
        .redirect(Policy::none())
        // the SDK switches both on in reqwest; a gzip blob must come back as it is stored
        .no_gzip()
        .no_deflate();
    let extra = match &config.extra_authorities {
        None => Vec::new(),
        Some(pem) => Certificate::from_pem_bundle(pem).map_err(ConfigurationError::Authorities)?,
    };
    builder = if https {
        builder.tls_certs_merge(extra)
    } else {
        builder.tls_certs_only(extra)
    };
    let client = builder.build().map_err(ConfigurationError::HttpClient)?;
    Ok(Arc::new(client))
}

/// How the SDK is to send.
pub(crate) fn client_options(client: Arc<dyn HttpClient>, retry: RetryProfile) -> ClientOptions {
    ClientOptions {
        retry: RetryOptions::custom(Arc::new(retry)),
        transport: Some(Transport::new(client)),
        ..ClientOptions::default()
    }
}
