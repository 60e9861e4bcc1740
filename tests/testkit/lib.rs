//! What end-to-end tests share: a world of its own for each test (database, queue, container, namespace),
//! the product installed in it by its own chart, and waits that have a name and an end.
//!
//! Functions here panic with a message that says what was expected; a test has nobody to hand an error to.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "this is test code, and a test ends where it fails"
)]

pub mod blob;
pub mod broker;
pub mod client;
pub mod cluster;
pub mod command;
pub mod platform;
pub mod postgres;
mod proxy;
pub mod release;
pub mod reports;
pub mod tokens;
mod wait;
pub mod world;

pub use proxy::Proxy;
pub use release::{Part, Release};
pub use wait::{throughout, until};
pub use world::{World, in_a_world};
