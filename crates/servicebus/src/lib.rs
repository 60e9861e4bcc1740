//! A client of Azure Service Bus queues over AMQP 1.0, shaped like the official SDKs.
//!
//! [`Client`] keeps one connection and rebuilds it for as long as it lives; [`Sender`] and [`Receiver`] attach
//! their links on it as often as needed. What the crate leaves to others: topics, sessions, transactions,
//! scheduling, and deciding whether a message whose outcome is unknown may be sent again.
//!
//! ```no_run
//! use servicebus::{Client, ConnectionString, Outcome, Outgoing, SenderOptions};
//!
//! # async fn example(connection_string: &str) -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new(connection_string.parse::<ConnectionString>()?.into_settings());
//!
//! let sender = client.sender("orders", SenderOptions::default());
//! let order = Outgoing {
//!     message_id: "order-1".to_owned(),
//!     body: "two apples".into(),
//!     ..Outgoing::default()
//! };
//! for outcome in sender.send(vec![order]).await.outcomes {
//!     match outcome {
//!         Outcome::Accepted => {}
//!         Outcome::Unknown(error) => println!("send it again under the same id: {error}"),
//!         Outcome::Refused(error) => println!("again later: {}, {error}", error.is_retriable()),
//!     }
//! }
//!
//! let receiver = client.receiver("orders", 10);
//! let message = receiver.recv().await?;
//! receiver.complete(&message).await?;
//! # Ok(())
//! # }
//! ```

mod cbs;
pub mod checks;
mod client;
mod connection;
mod connection_string;
mod decode;
mod encode;
mod error;
mod fault;
mod health;
mod management;
mod message;
mod receiver;
mod request;
mod sender;
mod settings;
mod supervisor;
mod token;
mod transport;

pub use ::backoff::Backoff;
pub use client::Client;
pub use connection_string::{ConnectionString, ConnectionStringError};
pub use error::{BUSY_PAUSE, Cause, Condition, Error, Recovery, chain};
pub use health::{Failure, Health};
pub use message::{DEAD_LETTER_DESCRIPTION, DEAD_LETTER_REASON, Outgoing, Peeked, Property, Received};
pub use receiver::Receiver;
pub use sender::{Outcome, SendReport, Sender, SenderOptions};
pub use settings::{Credential, Endpoint, InvalidNamespace, Settings, Timeouts, Transport};
