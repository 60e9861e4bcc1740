//! How long a call is tried. The SDK's own exponential policy waits up to half a minute between tries, obeys
//! a server's `Retry-After` of any size, and overflows when it is told to go on for long.

use std::time::Duration;

use async_trait::async_trait;
use azure_core::http::StatusCode;
use azure_core::http::headers::HeaderName;
use azure_core::http::policies::{RetryHeaders, RetryPolicy};
use backoff::Backoff;

/// How long a call is tried before it is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryProfile {
    /// For a person who waits: three tries, and a call ends within 5 seconds.
    Interactive,
    /// For work in the background: outages of a minute are outlasted; a call ends within 2 minutes.
    Patient,
    /// For work that is dear to begin again: outages of so long are outlasted.
    Persistent(Duration),
}

/// The waits between tries: soon after an outage work goes on.
const WAITS: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
/// The longest wait that a busy server can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

impl RetryProfile {
    /// How long one call is tried again. A last try may begin just before the end.
    const fn patience(self) -> Duration {
        match self {
            Self::Interactive => Duration::from_secs(5),
            Self::Patient => Duration::from_secs(60),
            Self::Persistent(patience) => patience,
        }
    }

    /// The most that one call may take, retries included.
    pub(crate) fn call_timeout(self) -> Duration {
        match self {
            Self::Interactive => self.patience(),
            Self::Patient | Self::Persistent(_) => self.patience().saturating_add(self.read_timeout()),
        }
    }

    pub(crate) const fn connect_timeout(self) -> Duration {
        match self {
            Self::Interactive => Duration::from_secs(2),
            Self::Patient | Self::Persistent(_) => Duration::from_secs(20),
        }
    }

    /// The most between two reads of an answer. Its clock starts when the request is sent, so a block
    /// has to be uploaded within it.
    pub(crate) const fn read_timeout(self) -> Duration {
        match self {
            Self::Interactive => Duration::from_secs(4),
            Self::Patient | Self::Persistent(_) => Duration::from_secs(60),
        }
    }

    /// Time is what ends the tries of all but the interactive.
    const fn retries_max(self) -> u32 {
        match self {
            Self::Interactive => 2,
            Self::Patient | Self::Persistent(_) => u32::MAX,
        }
    }
}

/// The wait before the `retry`-th try after the first.
fn wait_before(retry: u32) -> Duration {
    WAITS.random_delay(retry.saturating_sub(1))
}

/// What is waited when the server has asked for a wait of its own.
fn asked(wait: Duration, retry_after: Option<time::Duration>) -> Duration {
    let after = retry_after
        .and_then(|after| Duration::try_from(after).ok())
        .unwrap_or_default();
    wait.max(after.min(RETRY_AFTER_MAX))
}

#[async_trait]
impl RetryPolicy for RetryProfile {
    fn is_expired(&self, since_start: time::Duration, retry_count: u32) -> bool {
        retry_count >= self.retries_max() || since_start >= self.patience()
    }

    fn retry_headers(&self) -> Option<&RetryHeaders> {
        static HEADERS: std::sync::LazyLock<RetryHeaders> = std::sync::LazyLock::new(|| RetryHeaders {
            retry_headers: ["x-ms-retry-after-ms", "retry-after-ms", "retry-after"]
                .map(HeaderName::from_static)
                .to_vec(),
        });
        Some(&HEADERS)
    }

    /// None of our own: those of the SDK, which are 408, 429, 500, 502, 503 and 504.
    fn retry_status_codes(&self) -> &[StatusCode] {
        &[]
    }

    fn sleep_duration(&self, retry_count: u32) -> time::Duration {
        time::Duration::try_from(wait_before(retry_count)).unwrap_or(time::Duration::ZERO)
    }

    async fn wait(&self, retry_count: u32, retry_after: Option<time::Duration>) {
        tokio::time::sleep(asked(wait_before(retry_count), retry_after)).await;
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::none(None, 1)]
    #[case::shorter_than_ours(Some(0), 1)]
    #[case::longer(Some(7), 7)]
    #[case::too_long(Some(120), 30)]
    #[case::in_the_past(Some(-5), 1)]
    fn a_busy_server_is_obeyed_within_reason(#[case] asked_for: Option<i64>, #[case] seconds: u64) {
        let waited = asked(Duration::from_secs(1), asked_for.map(time::Duration::seconds));
        assert_eq!(waited, Duration::from_secs(seconds));
    }

    #[rstest]
    #[case::third_try(RetryProfile::Interactive, 1, 1, false)]
    #[case::no_fourth(RetryProfile::Interactive, 1, 2, true)]
    #[case::patient(RetryProfile::Patient, 59, 1_000, false)]
    #[case::patience_ends(RetryProfile::Patient, 60, 1, true)]
    #[case::persistent(RetryProfile::Persistent(Duration::from_secs(300)), 299, 1_000, false)]
    fn tries_end_by_time_or_by_number(
        #[case] profile: RetryProfile,
        #[case] seconds: i64,
        #[case] retries: u32,
        #[case] expired: bool,
    ) {
        assert_eq!(
            profile.is_expired(time::Duration::seconds(seconds), retries),
            expired
        );
    }
}
