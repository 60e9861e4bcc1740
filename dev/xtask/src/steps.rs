//! Saying what is being done, how long it took, and which step failed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Runs one step under a heading; says how long it took, or which step failed.
///
/// # Errors
/// What the step fails with, under the step's name.
pub fn step<T>(what: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("── {what}");
    let began = Instant::now();
    let result = run().with_context(|| format!("failed: {what}"))?;
    eprintln!("   done in {}: {what}", seconds(began.elapsed()));
    Ok(result)
}

/// A duration as people say it.
pub fn seconds(duration: Duration) -> String {
    let s = duration.as_secs();
    if s < 60 {
        format!("{:.1} s", duration.as_secs_f64())
    } else {
        format!("{} min {:02} s", s / 60, s % 60)
    }
}
