//! The exporter on a real PostgreSQL and a real Azurite.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy's leave for tests reaches only the functions marked as tests"
)]

mod attempts;
mod crashes;
mod failures;
mod golden;
mod independent;
mod support;
