//! What the programs share around their work: configuration groups, logs, shutdown, back-off, the
//! health and metrics endpoint, and the crash points of the fault tests.
//!
//! Nothing here knows what a report is.

mod args;
mod crash_point;
mod crypto;
#[cfg(feature = "health")]
pub mod health;
#[cfg(feature = "health")]
pub mod needs;
pub mod shutdown;
pub mod telemetry;

pub use ::backoff::Backoff;
pub use ::checks;
pub use args::{
    BlobArgs, BlobLogin, CatalogueArgs, DatabaseArgs, DatabaseLogin, IdentityArgs, PodArgs, ServiceBusArgs,
    ServiceBusLogin,
};
pub use crash_point::crash_point;
pub use crypto::{CryptoProviderInstalled, install_crypto_provider};
pub use telemetry::{LogFormat, TelemetryArgs};
