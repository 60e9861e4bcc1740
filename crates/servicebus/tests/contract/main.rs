//! The contract of the client with a Service Bus queue, run against the project's emulator, each test with one
//! of its own in this process.
//!
//! With `SERVICEBUS_TEST_CONNECTION_STRING` set, the tests that need none of the emulator's switches run
//! against what it names, one after the other, on the queue of its `EntityPath` or of `SERVICEBUS_TEST_QUEUE`
//! (`servicebus-contract` when neither is given); that queue is emptied first. The others are skipped, and say
//! so on standard error.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the allowance for tests does not reach the helpers of integration tests"
)]

mod access;
mod broker;
mod checks;
mod faults;
mod locks;
mod messages;
mod recovery;
