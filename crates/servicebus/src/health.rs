//! What the client knows about its connection, for readiness checks and metrics.

use std::sync::Arc;

use jiff::Timestamp;

use crate::error::Error;

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
