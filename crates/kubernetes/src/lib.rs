//! What a program asks of Kubernetes for itself: whether it has its rights and its resource there, what time
//! it is, and Events on its own Pod. Reports and Jobs are the operator's business.

pub mod checks;
mod error_chain;
mod pod;
pub mod rights;

pub use error_chain::error_chain;
pub use pod::{OwnPod, Told, cannot_start};
