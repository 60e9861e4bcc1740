//! The REST API: takes requests for popularity reports and answers for them.
//!
//! A request is one transaction in PostgreSQL and nothing else: neither Kubernetes nor Service Bus
//! nor Blob Storage has to be up for a 202. The custom resource is created behind the answer, and by
//! the operator's sweep where that fails.

mod auth;
mod config;
mod custom_resources;
mod downloads;
mod error;
mod etag;
mod idempotency;
mod metrics;
mod observe;
mod parameters;
mod problem;
mod routes;
mod server;
mod service;
mod startup;
mod traceparent;

pub use config::{AuthArgs, Config, JwtKeys, KubernetesArgs};
pub use server::{Server, ServerError};
