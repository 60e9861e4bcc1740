//! The token of one scope: whether it serves, and when to ask for another.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use azure_core::credentials::AccessToken;
use azure_core::http::StatusCode;
use backoff::Backoff;
use time::OffsetDateTime;
use tokio::time::Instant;

/// The earliest renewal before a token's end; as the Azure SDKs do.
const RENEW_BEFORE_END: Duration = Duration::from_secs(5 * 60);
/// The waits after failures.
const WAITS: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));

/// One scope's token, and who fetches it.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) scope: String,
    /// Held by the one request that is under way.
    pub(crate) flight: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    token: Option<Held>,
    failure: Option<Failure>,
}

#[derive(Debug)]
struct Held {
    token: AccessToken,
    renew_at: OffsetDateTime,
}

#[derive(Debug)]
struct Failure {
    in_a_row: u32,
    retry_at: Instant,
    error: NoToken,
}

/// What a slot has for a caller.
#[derive(Debug)]
pub(crate) enum Look {
    /// A token that serves; nothing is to be done.
    Serves(AccessToken),
    /// A token that still serves, and another is due.
    Due(AccessToken),
    /// No token, and one is to be asked for now.
    Empty,
    /// No token, and none is to be asked for before that moment.
    Failed(NoToken, Instant),
}

impl Slot {
    pub(crate) fn new(scope: &str) -> Self {
        Self {
            scope: scope.to_owned(),
            flight: tokio::sync::Mutex::default(),
            state: Mutex::default(),
        }
    }

    pub(crate) fn look(&self, now: OffsetDateTime) -> Look {
        let state = self.state();
        let waiting = state
            .failure
            .as_ref()
            .filter(|failure| Instant::now() < failure.retry_at);
        match (state.token.as_ref().filter(|held| held.serves(now)), waiting) {
            (Some(held), None) if held.renew_at <= now => Look::Due(held.token.clone()),
            (Some(held), _) => Look::Serves(held.token.clone()),
            (None, Some(failure)) => Look::Failed(failure.error.clone(), failure.retry_at),
            (None, None) => Look::Empty,
        }
    }

    /// How long it is until [`Slot::look`] can have anything new.
    pub(crate) fn pause(&self, now: OffsetDateTime) -> Duration {
        let state = self.state();
        let renewal = state
            .token
            .as_ref()
            .filter(|held| held.serves(now))
            .map(|held| Duration::try_from(held.renew_at - now).unwrap_or_default());
        let retry = state
            .failure
            .as_ref()
            .map(|failure| failure.retry_at.saturating_duration_since(Instant::now()));
        // after a failure the renewal is overdue
        retry.or(renewal).unwrap_or_default()
    }

    /// Why there is no token that serves, when asking for one has failed.
    pub(crate) fn trouble(&self, now: OffsetDateTime) -> Option<NoToken> {
        let state = self.state();
        let serves = state.token.as_ref().is_some_and(|held| held.serves(now));
        let failure = state.failure.as_ref().filter(|_| !serves)?;
        Some(failure.error.clone())
    }

    /// Whether the latest request has failed, a token at hand or not.
    pub(crate) fn is_failing(&self) -> bool {
        self.state().failure.is_some()
    }

    /// Takes in what a request brought.
    pub(crate) fn settle(&self, outcome: Result<AccessToken, NoToken>, now: OffsetDateTime) {
        let mut state = self.state();
        match outcome {
            Ok(token) => {
                state.token = Some(Held {
                    renew_at: renew_at(now, token.expires_on),
                    token,
                });
                state.failure = None;
            }
            Err(error) => {
                let before = state.failure.as_ref().map_or(0, |failure| failure.in_a_row);
                state.failure = Some(Failure {
                    in_a_row: before.saturating_add(1),
                    retry_at: Instant::now() + WAITS.random_delay(before),
                    error,
                });
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // no code panics while it holds the lock
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn serves(&self, now: OffsetDateTime) -> bool {
        now < self.token.expires_on
    }
}

/// Five minutes before the end, or when a fifth of a shorter life is left.
fn renew_at(now: OffsetDateTime, expires_on: OffsetDateTime) -> OffsetDateTime {
    let life = Duration::try_from(expires_on - now).unwrap_or_default();
    expires_on - RENEW_BEFORE_END.min(life / 5)
}

/// Why there is no token.
#[derive(Clone, Debug)]
pub struct NoToken {
    pub(crate) client_id: String,
    pub(crate) scope: String,
    pub(crate) source: Arc<azure_core::Error>,
}

impl NoToken {
    /// Whether the token service has said no. Else it was away, or busy.
    pub fn is_refused(&self) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self.source.as_ref());
        while let Some(error) = cause {
            let status = error
                .downcast_ref::<azure_core::Error>()
                .and_then(azure_core::Error::http_status);
            if let Some(status) = status {
                return matches!(
                    status,
                    StatusCode::BadRequest | StatusCode::Unauthorized | StatusCode::Forbidden
                );
            }
            cause = error.source();
        }
        false
    }
}

impl fmt::Display for NoToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client_id, scope, .. } = self;
        write!(f, "workload identity {client_id} got no token for {scope}")
    }
}

impl std::error::Error for NoToken {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.source.as_ref())
    }
}
