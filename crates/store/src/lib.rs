#![doc = include_str!("../README.md")]

pub mod catalogue;
pub mod checks;
pub mod migrations;
mod notifications;
pub mod outbox;
pub mod pool;
pub mod reports;
#[cfg(feature = "testing")]
pub mod testing;

pub use notifications::{Notification, Notifications};
