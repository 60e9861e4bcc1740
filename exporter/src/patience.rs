//! Outages of the databases are waited out: what an attempt has done is worth more than a few minutes.

use std::fmt::Display;
use std::time::Duration;

use runtime::Backoff;
use store::{catalogue, reports};
use tokio::time::Instant;

/// Short to the end: soon after an outage work goes on.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));

/// An error that may be over in a while.
pub(crate) trait Passing: Display {
    fn is_passing(&self) -> bool;
}

impl Passing for reports::Error {
    fn is_passing(&self) -> bool {
        self.is_unavailable()
    }
}

impl Passing for catalogue::Error {
    fn is_passing(&self) -> bool {
        self.kind() == catalogue::ErrorKind::Unavailable
    }
}

/// Repeats the call while its error is a passing one, for so long.
pub(crate) async fn with_patience<T, E: Passing>(
    patience: Duration,
    mut call: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, E> {
    let began = Instant::now();
    let mut failures = 0;
    loop {
        match call().await {
            Err(error) if error.is_passing() && began.elapsed() < patience => {
                let wait = BACKOFF.random_delay(failures);
                failures += 1;
                tracing::warn!(%error, ?wait, "a database is away; trying again");
                tokio::time::sleep(wait).await;
            }
            ended => return ended,
        }
    }
}
