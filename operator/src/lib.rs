//! The operator: carries a report from its row to its file.
//!
//! | part | way |
//! | --- | --- |
//! | [`relay`] | outbox → Service Bus |
//! | [`consumer`] | Service Bus → row |
//! | [`controller`] and [`report`] | row and PopularityReport → exporter Job → status |
//! | [`sweep`] | what nobody would come back to otherwise |
//!
//! Relay and consumer run in every process; controller and sweep in the one that holds the [`lease`].
//! [`run`] wires them.

pub mod clients;
pub mod config;
pub mod consumer;
pub mod context;
pub mod controller;
pub mod dead_letters;
pub mod doctor;
mod error_chain;
pub mod lease;
pub mod metrics;
pub mod notifications;
pub mod places;
pub mod relay;
pub mod release_finalizers;
pub mod report;
pub mod run;
pub mod smoke_test;
pub mod startup;
pub mod sweep;
#[cfg(test)]
mod testing;
