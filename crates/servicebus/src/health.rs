//! What the client knows about its connection, for readiness checks and metrics.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;

use crate::error::{Error, chain};

/// The connection's state at one moment; get it from [`crate::Client::health`].
#[derive(Debug, Clone, Default)]
pub struct Health {
    /// Whether a connection is open now.
    pub connected: bool,
    /// Since when `connected` has had its value; `None` before the first attempt.
    pub since: Option<Timestamp>,
    /// How many connections were opened so far.
    pub connections_opened: u64,
    /// How many attempts to connect failed since the last one that succeeded.
    pub failed_attempts: u32,
    /// The latest failure of the connection or a link; it stays after a recovery, compare `at` with `since`.
    /// The detach of an idle link, or the close of an idle connection, is no failure.
    pub last_error: Option<Failure>,
}

/// A failure and when it was noticed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// When.
    pub at: Timestamp,
    /// What.
    pub error: Arc<Error>,
}

/// Where the client's tasks report; the only writer of [`Health`].
#[derive(Debug, Clone)]
pub(crate) struct Reporter {
    health: watch::Sender<Health>,
}

impl Reporter {
    pub(crate) fn new() -> Self {
        Self {
            health: watch::Sender::new(Health::default()),
        }
    }

    pub(crate) fn health(&self) -> Health {
        self.health.borrow().clone()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    pub(crate) fn connected(&self) {
        self.health.send_modify(|health| {
            health.connected = true;
            health.since = Some(Timestamp::now());
            health.connections_opened += 1;
            health.failed_attempts = 0;
        });
    }

    pub(crate) fn disconnected(&self) {
        self.health.send_modify(|health| {
            health.connected = false;
            health.since = Some(Timestamp::now());
        });
    }

    pub(crate) fn attempt_failed(&self, error: Error) {
        self.health.send_modify(|health| {
            health.since.get_or_insert_with(Timestamp::now);
            health.failed_attempts = health.failed_attempts.saturating_add(1);
        });
        self.failed("connection attempt failed", error);
    }

    /// Logs a failure and keeps it as the latest.
    pub(crate) fn failed(&self, what: &'static str, error: Error) {
        tracing::warn!(error = chain(&error), retriable = error.is_retriable(), "{what}");
        let failure = Failure {
            at: Timestamp::now(),
            error: Arc::new(error),
        };
        self.health
            .send_modify(|health| health.last_error = Some(failure));
    }
}
