//! Clocks that must agree.

use jiff::{SignedDuration, Timestamp};

use crate::Check;

/// How far clocks may be apart. A standby takes a Lease over that its clock shows as 10 s old, and the leader
/// renews it every 2 s: beyond 8 s a standby would take it from a leader that is well. Five leave room for a
/// slow answer and for `Date` headers, which are cut to the second.
pub const SKEW_MAX: SignedDuration = SignedDuration::from_secs(5);

/// Judges a server's clock, as read in an answer to a request of ours that was sent at `sent` and answered at
/// `received`: the server read it somewhere in between.
pub fn clock(
    name: &'static str,
    whose: &str,
    theirs: Timestamp,
    sent: Timestamp,
    received: Timestamp,
) -> Check {
    let ahead = theirs.duration_since(received);
    let behind = sent.duration_since(theirs);
    // at most one of them is positive; both are negative when theirs lies between ours
    let (by, side) = if ahead >= behind {
        (ahead, "ahead of")
    } else {
        (behind, "behind")
    };
    if by <= SKEW_MAX {
        let apart = by.max(SignedDuration::ZERO).as_secs();
        return Check::ok(
            name,
            format!("{whose} and this machine are within {} s", apart + 1),
        );
    }
    Check::missing(
        name,
        format!(
            "the clock of {whose} is {} s {side} this machine's; more than {} s let two operators lead at once",
            by.as_secs(),
            SKEW_MAX.as_secs()
        ),
        "on the node whose clock is wrong: chronyc makestep",
    )
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    #[rstest]
    #[case::same(100, true, "within 1 s")]
    #[case::between_question_and_answer(102, true, "within 1 s")]
    #[case::a_little_ahead(109, true, "within 6 s")]
    #[case::ahead(110, false, "6 s ahead of this machine's")]
    #[case::a_little_behind(95, true, "within 6 s")]
    #[case::behind(94, false, "6 s behind this machine's")]
    #[case::a_day_behind(100 - 86_400, false, "86400 s behind")]
    fn a_clock_may_be_five_seconds_off(#[case] theirs: i64, #[case] ok: bool, #[case] says: &str) {
        let check = clock("clock", "PostgreSQL", at(theirs), at(100), at(104));

        assert_eq!(!check.failed(), ok, "{check}");
        assert!(check.outcome.message().contains(says), "{check}");
    }
}
