//! The groups of options that more than one program takes. Flag, variable, default, unit and meaning
//! stand here and nowhere else; secrets are redacted in `Debug` and never shown by `--help`.

mod blob;
mod database;
mod identity;
mod pod;
mod servicebus;

pub use blob::{BlobArgs, BlobLogin};
pub use database::{CatalogueArgs, DatabaseArgs, DatabaseLogin};
pub use identity::IdentityArgs;
pub use pod::PodArgs;
pub use servicebus::{ServiceBusArgs, ServiceBusLogin};
