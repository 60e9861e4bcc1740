//! What this crate promises, on a real Azurite.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy's leave for tests reaches only the functions marked as tests"
)]

mod blobs;
mod checks;
mod commits;
mod entra;
mod faults;
mod signed_urls;
mod support;
mod writing;
