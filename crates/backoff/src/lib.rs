//! How long to wait before trying again.

use std::time::Duration;

/// Exponential back-off with equal jitter: the n-th wait lies between half and the whole of
/// `first * 2^n`, and never above `most`. The half that is certain keeps a failing caller from
/// spinning; the half that is random keeps many callers from coming back together.
///
/// <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    most: Duration,
}

impl Backoff {
    /// Waits from about `first` up to `most`.
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most }
    }

    /// The wait after so many failures in a row before this one (0 for the first). `random` is
    /// from 0 to 1; what lies outside is taken as the nearer end.
    pub fn delay(&self, failures: u32, random: f64) -> Duration {
        let whole = self
            .first
            .saturating_mul(2_u32.saturating_pow(failures))
            .min(self.most);
        let random = if random.is_nan() {
            1.0
        } else {
            random.clamp(0.0, 1.0)
        };
        whole.mul_f64(0.5 + random / 2.0)
    }

    /// [`Backoff::delay`] with the thread's own randomness.
    pub fn random_delay(&self, failures: u32) -> Duration {
        self.delay(failures, rand::random())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));

    #[rstest]
    #[case::first_at_least(0, 0.0, 50)]
    #[case::first_at_most(0, 1.0, 100)]
    #[case::doubles(3, 1.0, 800)]
    #[case::jitters_the_upper_half_only(3, 0.5, 600)]
    #[case::capped(7, 1.0, 10_000)]
    #[case::capped_far_beyond_what_a_u32_holds(u32::MAX, 0.0, 5_000)]
    #[case::random_below_the_range(0, -3.0, 50)]
    #[case::random_above_the_range(0, 7.0, 100)]
    #[case::random_is_no_number(0, f64::NAN, 100)]
    fn waits_double_up_to_the_cap(#[case] failures: u32, #[case] random: f64, #[case] milliseconds: u64) {
        assert_eq!(
            BACKOFF.delay(failures, random),
            Duration::from_millis(milliseconds)
        );
    }
}
