//! What end-to-end tests share: a world of its own for each test (database, queue, container, namespace),
//! the product's programs as processes in it, and waits that have a name and an end.
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
pub mod platform;
pub mod postgres;
pub mod product;
mod program;
mod proxy;
pub mod reports;
pub mod tokens;
mod wait;
pub mod world;

pub use product::{Api, Operator};
pub use program::Program;
pub use proxy::Proxy;
pub use wait::{throughout, until};
pub use world::{World, in_a_world};
