//! The chart: what it renders, what it refuses, and what the API server says of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[cfg(feature = "cluster")]
mod admission;
mod alerts;
mod helm;
#[cfg(feature = "cluster")]
mod install;
mod lint;
mod objects;
mod refusals;
mod rendering;
mod secrets;
