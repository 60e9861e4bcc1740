//! Workload identity on real parts: tokens are traded, used and replaced in the middle of work.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends where it fails"
)]

mod blob;
mod postgres;
mod servicebus;
mod support;
mod tokens;
