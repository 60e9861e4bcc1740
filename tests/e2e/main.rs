//! End to end, on a real cluster, PostgreSQL, Azurite and the Service Bus emulator.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test ends where it fails"
)]

mod accept;
mod cleanup;
mod crash;
mod exporter;
mod file;
mod kubectl;
mod leader;
mod least_privilege;
mod missing;
mod network;
mod outage;
mod parameters;
mod queue;
mod upgrade;
