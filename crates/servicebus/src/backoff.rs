//! Pauses between attempts.

use std::time::Duration;

/// Exponential pauses with equal jitter: attempt `n` waits between half of and the whole of
/// `min(initial × 2ⁿ, max)`, so that many clients do not come back at the same moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    /// The longest first pause.
    pub initial: Duration,
    /// The longest pause of all.
    pub max: Duration,
}

impl Default for Backoff {
    /// 250 ms to 5 s: a broker that is back is noticed within 5 s.
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(250),
            max: Duration::from_secs(5),
        }
    }
}

impl Backoff {
    /// The pause after `failures` failed attempts in a row (0 counts as 1). `random` is drawn evenly from
    /// `0.0..1.0`; values outside are clamped.
    pub fn pause(&self, failures: u32, random: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let ceiling = self.initial.saturating_mul(1 << doublings).min(self.max);
        ceiling / 2 + (ceiling / 2).mul_f64(random.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const BACKOFF: Backoff = Backoff {
        initial: Duration::from_millis(100),
        max: Duration::from_secs(5),
    };

    #[rstest]
    #[case::zero_counts_as_one(0, 0.0, 50)]
    #[case::first_shortest(1, 0.0, 50)]
    #[case::first_longest(1, 1.0, 100)]
    #[case::doubled(2, 0.5, 150)]
    #[case::fifth(5, 0.0, 800)]
    #[case::capped(7, 1.0, 5_000)]
    #[case::capped_without_overflow(u32::MAX, 0.0, 2_500)]
    #[case::random_is_clamped_below(1, -3.0, 50)]
    #[case::random_is_clamped_above(1, 7.0, 100)]
    fn pause_doubles_up_to_the_maximum(#[case] failures: u32, #[case] random: f64, #[case] millis: u64) {
        assert_eq!(BACKOFF.pause(failures, random), Duration::from_millis(millis));
    }
}
