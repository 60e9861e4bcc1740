//! The emulator as clients, administrators and killers of processes meet it. What Microsoft's own clients make of
//! it is in `sdk-tests`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "support functions fail a test by panicking"
)]

mod admin;
mod authorization;
mod client;
mod command_line;
mod durability;
mod faults;
mod links;
mod process;
mod wire;
