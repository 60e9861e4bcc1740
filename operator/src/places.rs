//! The places for exporters: at most so many Jobs live at once, and the rest wait in order.
//!
//! Kept in the leader's memory: Jobs are the truth, and [`Places::resync`] reads them at the start and
//! from time to time. The order is the row's: who was dispatched first goes first.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::ReportId;
use tokio::time::Instant;

/// A place that was given and whose Job is not seen yet stays taken for so long.
const GRACE: Duration = Duration::from_secs(60);

/// The answer to a request for a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The report may have its Job.
    Granted,
    /// All places are taken, or others come first.
    Waiting {
        /// The report's number in line, from 1.
        number: usize,
    },
}

/// Who holds a place and who waits for one.
#[derive(Debug)]
pub struct Places {
    most: NonZeroUsize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    held: HashMap<ReportId, Instant>,
    waiting: HashMap<ReportId, usize>,
}

impl Places {
    /// So many places, all free.
    pub fn new(most: NonZeroUsize) -> Self {
        Self {
            most,
            inner: Mutex::default(),
        }
    }

    /// How many places there are.
    pub fn most(&self) -> usize {
        self.most.get()
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.lock().held.len()
    }

    /// Asks for a place. `queue` is every dispatched report that no exporter has begun, in order; those
    /// that hold a place are passed over. A report that is not among them (its exporter had begun, and its
    /// Job was lost with its cluster) goes before all.
    pub fn request(&self, report: ReportId, queue: &[ReportId], now: Instant) -> Answer {
        let mut inner = self.lock();
        if inner.held.contains_key(&report) {
            return Answer::Granted;
        }
        let before = queue
            .iter()
            .filter(|other| !inner.held.contains_key(other))
            .position(|other| *other == report)
            .unwrap_or(0);
        let free = self.most.get().saturating_sub(inner.held.len());
        if before < free {
            inner.waiting.remove(&report);
            inner.held.insert(report, now);
            Answer::Granted
        } else {
            let number = before.saturating_sub(free).saturating_add(1);
            inner.waiting.insert(report, number);
            Answer::Waiting { number }
        }
    }

    /// Records that the report's Job lives.
    pub fn hold(&self, report: ReportId, now: Instant) {
        let mut inner = self.lock();
        inner.waiting.remove(&report);
        inner.held.entry(report).or_insert(now);
    }

    /// Gives the report's place back, and takes it out of the line. The answer is who is to be woken: as
    /// many of those that were told to wait as there are places free now, first in line first.
    pub fn release(&self, report: ReportId) -> Vec<ReportId> {
        let mut inner = self.lock();
        inner.waiting.remove(&report);
        if inner.held.remove(&report).is_none() {
            return Vec::new();
        }
        self.next(&inner)
    }

    /// Corrects the count by the Jobs that live: what was lost sight of is given back. The answer is as for
    /// [`Places::release`].
    pub fn resync(&self, live: &[ReportId], now: Instant) -> Vec<ReportId> {
        let mut inner = self.lock();
        inner
            .held
            .retain(|report, since| live.contains(report) || now.duration_since(*since) < GRACE);
        for report in live {
            inner.held.entry(*report).or_insert(now);
        }
        self.next(&inner)
    }

    fn next(&self, inner: &Inner) -> Vec<ReportId> {
        let free = self.most.get().saturating_sub(inner.held.len());
        let mut line: Vec<_> = inner.waiting.iter().collect();
        line.sort_by_key(|(report, number)| (**number, **report));
        line.into_iter().take(free).map(|(report, _)| *report).collect()
    }

    /// A panic while the lock was held cannot have left the maps half-changed.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(n: u128) -> ReportId {
        ReportId::new(uuid::Uuid::from_u128(n))
    }

    fn places(most: usize) -> Places {
        Places::new(NonZeroUsize::new(most).unwrap())
    }

    #[test]
    fn places_go_to_the_first_in_line_however_the_requests_come() {
        let places = places(1);
        let queue = [report(1), report(2), report(3)];
        let now = Instant::now();

        assert_eq!(
            places.request(report(3), &queue, now),
            Answer::Waiting { number: 2 }
        );
        assert_eq!(
            places.request(report(2), &queue, now),
            Answer::Waiting { number: 1 }
        );
        assert_eq!(places.request(report(1), &queue, now), Answer::Granted);
        assert_eq!(
            places.request(report(2), &queue, now),
            Answer::Waiting { number: 1 }
        );
    }

    #[test]
    fn a_place_that_is_given_back_wakes_the_next_in_line() {
        let places = places(1);
        let queue = [report(1), report(2), report(3)];
        let now = Instant::now();
        for n in [1, 3, 2] {
            places.request(report(n), &queue, now);
        }

        assert_eq!(places.release(report(1)), [report(2)]);
        assert_eq!(places.request(report(2), &queue[1..], now), Answer::Granted);
    }

    #[test]
    fn a_report_keeps_its_place_when_it_asks_again() {
        let places = places(1);
        let now = Instant::now();
        places.request(report(1), &[report(1)], now);

        assert_eq!(places.request(report(1), &[report(1)], now), Answer::Granted);
        assert_eq!(places.taken(), 1);
    }

    #[test]
    fn a_report_whose_exporter_had_begun_goes_before_all() {
        let places = places(1);

        assert_eq!(
            places.request(report(9), &[report(1)], Instant::now()),
            Answer::Granted
        );
    }

    #[test]
    fn who_gives_no_place_back_wakes_nobody() {
        let places = places(1);
        let now = Instant::now();
        places.request(report(1), &[report(1), report(2)], now);
        places.request(report(2), &[report(1), report(2)], now);

        assert_eq!(places.release(report(7)), []);
    }

    #[test]
    fn jobs_that_were_lost_sight_of_give_their_places_back() {
        let places = places(2);
        let start = Instant::now();
        places.hold(report(1), start);
        places.hold(report(2), start);
        places.request(report(3), &[report(3)], start);

        let woken = places.resync(&[report(2)], start + GRACE);

        assert_eq!(woken, [report(3)]);
        assert_eq!(places.taken(), 1);
    }

    #[test]
    fn a_place_that_was_given_just_now_is_not_taken_away_for_want_of_a_job() {
        let places = places(2);
        let start = Instant::now();
        places.request(report(1), &[report(1)], start);

        places.resync(&[], start + Duration::from_secs(1));

        assert_eq!(places.taken(), 1);
    }
}
