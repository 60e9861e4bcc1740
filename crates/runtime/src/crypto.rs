//! The one TLS provider of the process.

/// Another provider had been installed already.
#[derive(Debug, thiserror::Error)]
#[error("a TLS crypto provider is installed already; install it first in main, and once")]
pub struct CryptoProviderInstalled;

/// Makes aws-lc-rs the process's TLS provider. Every `main` calls this first: with more than one
/// provider in the build and none installed, rustls panics at the first connection.
///
/// # Errors
/// [`CryptoProviderInstalled`] when it is not the first to do so.
pub fn install_crypto_provider() -> Result<(), CryptoProviderInstalled> {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| CryptoProviderInstalled)
}
