//! What the log says while a file is written.

use std::time::{Duration, Instant};

/// How often it says something.
const EVERY: Duration = Duration::from_secs(5);

/// Speaks up now and then.
pub(crate) struct Progress {
    began: Instant,
    next: Instant,
}

impl Progress {
    pub(crate) fn begin() -> Self {
        let began = Instant::now();
        Self {
            began,
            next: began + EVERY,
        }
    }

    pub(crate) fn row(&mut self, rows: u64, bytes: u64) {
        // the clock is read for every hundredth row only
        if !rows.is_multiple_of(100) {
            return;
        }
        let now = Instant::now();
        if now >= self.next {
            self.next = now + EVERY;
            tracing::info!(rows, bytes, seconds = self.seconds(), "writing");
        }
    }

    /// Seconds since the beginning, to the tenth.
    pub(crate) fn seconds(&self) -> f64 {
        (self.began.elapsed().as_secs_f64() * 10.0).round() / 10.0
    }
}
