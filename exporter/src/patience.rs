//! Short outages of the reports' database are waited out: a whole attempt is worth more than a minute.

use std::time::Duration;

use runtime::Backoff;
use store::reports;
use tokio::time::Instant;

const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
/// After so long the attempt ends, and the Job's own back-off goes on.
const PATIENCE: Duration = Duration::from_secs(60);

/// Repeats the call while the database is away, for a minute.
pub(crate) async fn while_unavailable<T>(
    mut call: impl AsyncFnMut() -> Result<T, reports::Error>,
) -> Result<T, reports::Error> {
    let end = Instant::now() + PATIENCE;
    let mut failures = 0;
    loop {
        match call().await {
            Err(error) if error.is_unavailable() && Instant::now() < end => {
                let wait = BACKOFF.random_delay(failures);
                failures += 1;
                tracing::warn!(error = %error, ?wait, "the reports' database is away; trying again");
                tokio::time::sleep(wait).await;
            }
            ended => return ended,
        }
    }
}
