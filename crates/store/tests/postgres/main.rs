//! The store on a real PostgreSQL, each test in a database of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in an integration target clippy's leave for tests reaches the test functions only"
)]

mod acceptance;
mod catalogue;
mod checks;
mod constraints;
mod custom_resources;
mod files;
mod fixtures;
mod memory;
mod migrations;
mod notifications;
mod outbox;
mod reading;
mod replica;
mod roles;
mod transitions;
