//! Saying what is being done, how far it is, how long it took, and which step failed.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// Runs one step under a heading; says how long it took, or which step failed.
///
/// # Errors
/// What the step fails with, under the step's name.
pub fn step<T>(what: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("── {what}");
    let began = Instant::now();
    let result = run().with_context(|| format!("the step that failed: {what}"))?;
    eprintln!("   {what}: {}", seconds(began.elapsed()));
    Ok(result)
}

/// Asks `ready` again and again until it says yes; says every few seconds that it still waits.
///
/// # Errors
/// When `ready` fails, which ends the waiting, or when `limit` has passed.
pub fn wait_for(what: &str, limit: Duration, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
    const SAY_AFTER: Duration = Duration::from_secs(5);
    let began = Instant::now();
    let mut said = began;
    while !ready()? {
        if began.elapsed() > limit {
            bail!("{what}: not within {}", seconds(limit));
        }
        if said.elapsed() > SAY_AFTER {
            said = Instant::now();
            eprintln!(
                "   waiting for {what}: {} of at most {}",
                seconds(began.elapsed()),
                seconds(limit)
            );
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
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
