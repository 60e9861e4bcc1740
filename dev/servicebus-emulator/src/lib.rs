//! An AMQP 1.0 broker for development that Microsoft's own Service Bus clients take for Azure Service Bus.
//!
//! It keeps queues with peek-lock, dead letters, duplicate detection, scheduled messages and times to live,
//! in memory or in a file that survives `kill -9`, and has switches that make it misbehave on purpose.
//! Topics, sessions and transactions are not there.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use servicebus_emulator::{Config, Emulator, QueueSettings};
//!
//! let config = Config::in_memory().with_queue("orders".parse()?, QueueSettings::default());
//! let emulator = Emulator::start(config).await?;
//! let connection_string = emulator.connection_string();
//! // …
//! emulator.stop().await;
//! # Ok(())
//! # }
//! ```

mod admin;
mod broker;
mod cbs;
mod clock;
mod codec;
mod connection;
mod emulator;
mod frame;
mod journal;
mod keys;
mod management;
mod message;
mod queue;
mod rpc;
mod sasl;
mod store;
#[cfg(test)]
mod testing;

pub mod cli;
pub mod config;
pub mod faults;

pub use broker::{ConnectionCounters, QueueView, Refusal};
pub use config::{Config, Storage};
pub use emulator::{Emulator, Running, StartError, connection_string};
pub use faults::{BrokerFaults, QueueFaults, Refusals};
pub use keys::JwtIssuer;
pub use queue::{Counters, Counts, InvalidName, InvalidSettings, PartCounts, QueueName, QueueSettings};
