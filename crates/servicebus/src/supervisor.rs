//! Keeps a connection for as long as the client lives.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::Connection;
use crate::error::{Cause, Error};
use crate::health::Reporter;
use crate::settings::Settings;

/// A connection that ends sooner than this counts as one more failure in a row, so that a broker that takes
/// connections only to drop them is not hammered.
pub(crate) const SETTLED_AFTER: Duration = Duration::from_secs(5);

/// What the client's handles and tasks share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub settings: Arc<Settings>,
    pub reporter: Reporter,
    /// The receivers' tasks.
    pub links: TaskTracker,
    /// Ends the receivers, while the connection still works.
    pub stop_links: CancellationToken,
    tasks: TaskTracker,
    stop: CancellationToken,
    wanted: Arc<Notify>,
    state: watch::Receiver<State>,
}

/// How far the supervisor has come.
#[derive(Debug, Clone)]
enum State {
    /// Nobody has asked for a connection yet.
    Idle,
    /// No connection; the failure of the latest attempt, when there was one.
    Down(Option<Error>),
    Up(Arc<Connection>),
    Closed,
}

impl Shared {
    /// Starts the supervisor; it connects when somebody first asks for a connection.
    pub(crate) fn start(settings: Settings) -> Self {
        let settings = Arc::new(settings);
        let reporter = Reporter::new();
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let wanted = Arc::new(Notify::new());
        let (state, watch) = watch::channel(State::Idle);
        let supervisor = Supervisor {
            settings: Arc::clone(&settings),
            reporter: reporter.clone(),
            tasks: tasks.clone(),
            stop: stop.clone(),
            wanted: Arc::clone(&wanted),
            state,
        };
        tasks.spawn(supervisor.run());
        Self {
            settings,
            reporter,
            links: TaskTracker::new(),
            tasks,
            stop_links: CancellationToken::new(),
            stop,
            wanted,
            state: watch,
        }
    }

    /// An open connection, waiting for one until `deadline` (`None`: for as long as it takes).
    ///
    /// # Errors
    ///
    /// [`Error::Closed`]; at the deadline the latest failure to connect; a failure that does not pass by
    /// itself at once.
    pub(crate) async fn connection(&self, deadline: Option<Instant>) -> Result<Arc<Connection>, Error> {
        self.wanted.notify_one();
        let mut state = self.state.clone();
        let mut latest = None;
        let started = Instant::now();
        loop {
            match state.borrow_and_update().clone() {
                State::Up(connection) if !connection.closed().is_cancelled() => return Ok(connection),
                State::Closed => return Err(Error::Closed),
                State::Down(Some(error)) if !error.is_retriable() => return Err(error),
                State::Down(error) => latest = error,
                State::Idle | State::Up(_) => {}
            }
            let changed = match deadline {
                None => state.changed().await,
                Some(deadline) => timeout_at(deadline, state.changed()).await.map_err(|_| {
                    latest.take().unwrap_or_else(|| Error::Connect {
                        address: self.settings.endpoint.address(),
                        source: Cause::TimedOut(started.elapsed()),
                    })
                })?,
            };
            // The supervisor drops its end only after it has said Closed.
            changed.map_err(|_| Error::Closed)?;
        }
    }

    /// Ends every task of the client, links first.
    pub(crate) async fn close(&self) {
        let allowed = self.settings.timeouts.close;
        for (token, tasks, what) in [
            (&self.stop_links, &self.links, "links"),
            (&self.stop, &self.tasks, "connection"),
        ] {
            token.cancel();
            tasks.close();
            if timeout(allowed, tasks.wait()).await.is_err() {
                tracing::warn!(what, ?allowed, "not closed within the time allowed");
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop_links.cancel();
        self.stop.cancel();
    }
}

struct Supervisor {
    settings: Arc<Settings>,
    reporter: Reporter,
    tasks: TaskTracker,
    stop: CancellationToken,
    wanted: Arc<Notify>,
    state: watch::Sender<State>,
}

impl Supervisor {
    async fn run(self) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.wanted.notified() => self.keep_connected().await,
        }
        // Senders and receivers have their own references to a connection; it closes by `stop`.
        self.state.send_replace(State::Closed);
        self.reporter.disconnected();
    }

    async fn keep_connected(&self) {
        let mut failures = 0;
        self.state.send_replace(State::Down(None));
        while !self.stop.is_cancelled() {
            let opening = Connection::open(
                &self.settings,
                &self.tasks,
                &self.reporter,
                self.stop.child_token(),
            );
            let opened = tokio::select! {
                () = self.stop.cancelled() => return,
                opened = opening => opened,
            };
            let latest = match opened {
                Ok(connection) => {
                    let since = Instant::now();
                    tracing::info!(address = self.settings.endpoint.address(), "connected");
                    self.reporter.connected();
                    self.state.send_replace(State::Up(Arc::clone(&connection)));
                    connection.closed().cancelled().await;
                    self.state.send_replace(State::Down(None));
                    self.reporter.disconnected();
                    let end = connection.end();
                    self.lost(end.clone());
                    failures = if since.elapsed() < SETTLED_AFTER {
                        failures + 1
                    } else {
                        0
                    };
                    Some(end)
                }
                Err(error) => {
                    failures += 1;
                    self.reporter.attempt_failed(error.clone());
                    self.state.send_replace(State::Down(Some(error.clone())));
                    error.cause().cloned()
                }
            };
            if failures > 0 {
                let pause = self.settings.pause(failures, latest.as_ref());
                tokio::select! {
                    () = self.stop.cancelled() => {}
                    () = sleep(pause) => {}
                }
            }
        }
    }

    fn lost(&self, cause: Cause) {
        if self.stop.is_cancelled() {
            return;
        }
        if is_idle_close(&cause) {
            tracing::info!(%cause, "idle connection closed by the broker");
        } else {
            self.reporter
                .failed("connection lost", Error::Connection { source: cause });
        }
    }
}

/// The service closes a connection without links after some minutes: "The connection was inactive for more
/// than the allowed 60000 milliseconds".
fn is_idle_close(cause: &Cause) -> bool {
    matches!(cause, Cause::Broker { condition, description }
        if condition.as_str() == "amqp:connection:forced" && description.contains("inactive"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Condition;

    #[test]
    fn only_the_close_of_an_idle_connection_is_no_failure() {
        let forced = |description: &str| Cause::Broker {
            condition: Condition::new("amqp:connection:forced"),
            description: description.to_owned(),
        };

        assert!(is_idle_close(&forced(
            "The connection was inactive for more than the allowed 60000 milliseconds and is closed by container"
        )));
        assert!(!is_idle_close(&forced("the broker is shutting down")));
        assert!(!is_idle_close(&Cause::Disconnected));
    }
}
