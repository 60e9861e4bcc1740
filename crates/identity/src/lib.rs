//! The Pod's workload identity: the one source of Entra ID tokens of a process, for Blob Storage, Service Bus
//! and PostgreSQL alike.
//!
//! The kubelet writes a token of the Pod's service account into a file and replaces it in time; this crate
//! trades it for access tokens
//! (<https://learn.microsoft.com/entra/workload-id/workload-identity-federation>), keeps one for each scope and
//! renews it before it ends. See `docs/adr/0007-workload-identity.md`.

mod assertion;
mod identity;
mod settings;
mod slot;

pub use azure_core::credentials::TokenCredential;

pub use identity::{Identity, POSTGRES_SCOPE};
pub use settings::{ConfigurationError, Settings};
pub use slot::NoToken;
