//! The REST service over real HTTP, on a real PostgreSQL.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on should stop and say where"
)]

mod answers;
mod authentication;
mod download_links;
mod idempotency;
mod limits;
mod problems;
mod process;
mod requests;
mod support;
