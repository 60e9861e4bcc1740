//! Azure Blob Storage as the product uses it: a streaming block writer whose memory is bounded, one
//! conditional commit, the facts of a blob, and signed read-only URLs.
//!
//! It logs in with an account key (a connection string, as Azurite has it) or with Entra ID. The rules
//! that it relies on are Microsoft's "Blob service REST API" reference; each is linked where it is used.
//!
//! What it leaves to others: what is in a blob, when one may be deleted, and whom a URL is given to.

mod blocks;
mod config;
mod connection_string;
mod delegation;
mod error;
mod facts;
mod metadata;
mod retry;
mod service_sas;
mod shared_key;
mod signed_url;
mod store;
mod transport;
mod writer;

pub use azure_core::credentials::TokenCredential;

pub use blocks::{BLOCKS_MAX, GROWTH_EVERY};
pub use config::{BlobConfig, ConfigurationError, Credential};
pub use connection_string::{ConnectionString, ConnectionStringError};
pub use error::{Error, Refusal, ServiceFailure};
pub use facts::BlobFacts;
pub use metadata::{InvalidMetadata, Metadata};
pub use retry::RetryProfile;
pub use signed_url::{SignedUrl, URL_TTL_MAX};
pub use store::{BlobContent, BlobStore, checks};
pub use writer::{BlobWriter, Commit, WriterOptions};
