//! Waiting for conditions, each with a name and an end.

use std::time::{Duration, Instant};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(150);

/// Waits until `condition` gives a value, and returns it.
///
/// # Panics
/// When it has not after `limit`, with the condition's name.
pub async fn until<T>(name: &str, limit: Duration, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        let look = tokio::time::timeout(limit.max(Duration::from_secs(5)), condition()).await;
        if let Ok(Some(value)) = look {
            return value;
        }
        assert!(
            started.elapsed() < limit,
            "waited {} s, and still not: {name}",
            limit.as_secs()
        );
        tokio::time::sleep(POLL).await;
    }
}

/// Watches for the whole of `span` that `condition` stays as it is.
///
/// # Panics
/// When it does not, with the condition's name.
pub async fn throughout(name: &str, span: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while started.elapsed() < span {
        assert!(
            condition().await,
            "no longer after {:.1} s: {name}",
            started.elapsed().as_secs_f64()
        );
        tokio::time::sleep(POLL).await;
    }
}
