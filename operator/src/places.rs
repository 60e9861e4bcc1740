//! The places for exporters: at most so many Jobs run at once, and the rest wait in order.
//!
//! A suspended Job runs nothing and holds none of these places: its queue decides when it runs. So that a
//! queue that admits nothing does not gather Jobs without end, each has as many places of its own for
//! suspended Jobs, and its own line. A Job that its queue resumes counts as running, also where that makes
//! one too many; what has no queue then waits.
//!
//! Kept in the leader's memory: Jobs are the truth, and [`Places::resync`] reads them at the start and
//! from time to time. The order is the row's: who was dispatched first goes first.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crds::names;
use domain::ReportId;
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt as _;
use tokio::time::Instant;

use crate::report::failure::{self, JobState};

/// A place that was given and whose Job is not seen yet stays taken for so long.
const GRACE: Duration = Duration::from_secs(60);

/// What kind of place a Job takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// That of a Job that has Pods, or may have them at any moment.
    Running,
    /// That of a suspended Job, in the queue of this name; a person may suspend one that has none.
    Suspended(Option<String>),
}

impl Place {
    /// The place that the Job takes, unless it has ended.
    pub fn of(job: &Job) -> Option<Self> {
        match failure::state(job) {
            JobState::Live | JobState::Deleting => Some(Self::Running),
            JobState::Suspended => Some(Self::Suspended(queue_of(job).map(str::to_owned))),
            JobState::Complete | JobState::Failed => None,
        }
    }
}

/// The queue that the Job's label names.
pub fn queue_of(job: &Job) -> Option<&str> {
    job.labels().get(names::QUEUE_NAME_LABEL).map(String::as_str)
}

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
    held: HashMap<ReportId, Held>,
    waiting: HashMap<ReportId, Waiting>,
}

#[derive(Debug)]
struct Held {
    place: Place,
    since: Instant,
}

#[derive(Debug)]
struct Waiting {
    place: Place,
    number: usize,
}

impl Inner {
    fn taken(&self, place: &Place) -> usize {
        self.held.values().filter(|held| held.place == *place).count()
    }

    /// Puts the report's Job into a place, and says whether it had one of another kind.
    fn occupy(&mut self, report: ReportId, place: Place, now: Instant) -> bool {
        let held = self.held.entry(report).or_insert_with(|| Held {
            place: place.clone(),
            since: now,
        });
        let moved = held.place != place;
        held.place = place;
        moved
    }
}

impl Places {
    /// So many places of each kind, all free.
    pub fn new(most: NonZeroUsize) -> Self {
        Self {
            most,
            inner: Mutex::default(),
        }
    }

    /// How many places of each kind there are.
    pub fn most(&self) -> usize {
        self.most.get()
    }

    /// How many are taken by running Jobs.
    pub fn taken(&self) -> usize {
        self.lock().taken(&Place::Running)
    }

    /// Asks for a place. `queue` is every dispatched report that no exporter has begun, in order; those
    /// that hold a place are passed over, and those that are known to wait for one of another kind. A report
    /// that is not among them (its exporter had begun, and its Job was lost with its cluster) goes before all.
    pub fn request(&self, report: ReportId, place: &Place, queue: &[ReportId], now: Instant) -> Answer {
        let mut inner = self.lock();
        if inner.held.contains_key(&report) {
            return Answer::Granted;
        }
        let before = queue
            .iter()
            .filter(|other| !inner.held.contains_key(other))
            .filter(|other| {
                let waiting = inner.waiting.get(other);
                waiting.is_none_or(|waiting| waiting.place == *place)
            })
            .position(|other| *other == report)
            .unwrap_or(0);
        let free = self.most.get().saturating_sub(inner.taken(place));
        let place = place.clone();
        if before < free {
            inner.waiting.remove(&report);
            inner.held.insert(report, Held { place, since: now });
            Answer::Granted
        } else {
            let number = before.saturating_sub(free).saturating_add(1);
            inner.waiting.insert(report, Waiting { place, number });
            Answer::Waiting { number }
        }
    }

    /// Records that the report's Job lives, and in which kind of place. The answer is as for
    /// [`Places::release`]: when a Job is suspended or resumed it gives its earlier place back.
    pub fn hold(&self, report: ReportId, place: Place, now: Instant) -> Vec<ReportId> {
        let mut inner = self.lock();
        inner.waiting.remove(&report);
        if inner.occupy(report, place, now) {
            self.next(&inner)
        } else {
            Vec::new()
        }
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
    pub fn resync(&self, live: HashMap<ReportId, Place>, now: Instant) -> Vec<ReportId> {
        let mut inner = self.lock();
        inner
            .held
            .retain(|report, held| live.contains_key(report) || now.duration_since(held.since) < GRACE);
        for (report, place) in live {
            inner.occupy(report, place, now);
        }
        self.next(&inner)
    }

    fn next(&self, inner: &Inner) -> Vec<ReportId> {
        let mut line: Vec<_> = inner.waiting.iter().collect();
        line.sort_by_key(|(report, waiting)| (waiting.number, **report));
        let mut free: HashMap<&Place, usize> = HashMap::new();
        line.retain(|(_, waiting)| {
            let free = free
                .entry(&waiting.place)
                .or_insert_with(|| self.most.get().saturating_sub(inner.taken(&waiting.place)));
            let woken = *free > 0;
            *free = free.saturating_sub(1);
            woken
        });
        line.into_iter().map(|(report, _)| *report).collect()
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
            places.request(report(3), &Place::Running, &queue, now),
            Answer::Waiting { number: 2 }
        );
        assert_eq!(
            places.request(report(2), &Place::Running, &queue, now),
            Answer::Waiting { number: 1 }
        );
        assert_eq!(
            places.request(report(1), &Place::Running, &queue, now),
            Answer::Granted
        );
        assert_eq!(
            places.request(report(2), &Place::Running, &queue, now),
            Answer::Waiting { number: 1 }
        );
    }

    #[test]
    fn a_place_that_is_given_back_wakes_the_next_in_line() {
        let places = places(1);
        let queue = [report(1), report(2), report(3)];
        let now = Instant::now();
        for n in [1, 3, 2] {
            places.request(report(n), &Place::Running, &queue, now);
        }

        assert_eq!(places.release(report(1)), [report(2)]);
        assert_eq!(
            places.request(report(2), &Place::Running, &queue[1..], now),
            Answer::Granted
        );
    }

    #[test]
    fn a_report_keeps_its_place_when_it_asks_again() {
        let places = places(1);
        let now = Instant::now();
        places.request(report(1), &Place::Running, &[report(1)], now);

        assert_eq!(
            places.request(report(1), &Place::Running, &[report(1)], now),
            Answer::Granted
        );
        assert_eq!(places.taken(), 1);
    }

    #[test]
    fn a_report_whose_exporter_had_begun_goes_before_all() {
        let places = places(1);

        assert_eq!(
            places.request(report(9), &Place::Running, &[report(1)], Instant::now()),
            Answer::Granted
        );
    }

    #[test]
    fn who_gives_no_place_back_wakes_nobody() {
        let places = places(1);
        let now = Instant::now();
        places.request(report(1), &Place::Running, &[report(1), report(2)], now);
        places.request(report(2), &Place::Running, &[report(1), report(2)], now);

        assert_eq!(places.release(report(7)), []);
    }

    #[test]
    fn jobs_that_were_lost_sight_of_give_their_places_back() {
        let places = places(2);
        let start = Instant::now();
        places.hold(report(1), Place::Running, start);
        places.hold(report(2), Place::Running, start);
        places.request(report(3), &Place::Running, &[report(3)], start);

        let woken = places.resync([(report(2), Place::Running)].into(), start + GRACE);

        assert_eq!(woken, [report(3)]);
        assert_eq!(places.taken(), 1);
    }

    #[test]
    fn a_place_that_was_given_just_now_is_not_taken_away_for_want_of_a_job() {
        let places = places(2);
        let start = Instant::now();
        places.request(report(1), &Place::Running, &[report(1)], start);

        places.resync(HashMap::new(), start + Duration::from_secs(1));

        assert_eq!(places.taken(), 1);
    }

    fn in_queue(name: &str) -> Place {
        Place::Suspended(Some(name.to_owned()))
    }

    #[test]
    fn a_suspended_job_takes_no_place_of_a_running_one_nor_of_another_queue() {
        let places = places(1);
        let line: Vec<_> = (1..=4).map(report).collect();
        let now = Instant::now();

        assert_eq!(
            places.request(report(1), &in_queue("a"), &line, now),
            Answer::Granted
        );
        assert_eq!(
            places.request(report(2), &in_queue("a"), &line, now),
            Answer::Waiting { number: 1 }
        );
        assert_eq!(
            places.request(report(3), &in_queue("b"), &line, now),
            Answer::Granted
        );
        assert_eq!(
            places.request(report(4), &Place::Running, &line, now),
            Answer::Granted
        );
        assert_eq!(places.taken(), 1);
    }

    #[test]
    fn a_job_that_its_queue_resumes_makes_room_in_the_queue_and_counts_as_running() {
        let places = places(1);
        let line: Vec<_> = (1..=3).map(report).collect();
        let now = Instant::now();
        places.request(report(1), &in_queue("a"), &line, now);
        places.request(report(2), &in_queue("a"), &line, now);

        let woken = places.hold(report(1), Place::Running, now);

        assert_eq!(woken, [report(2)]);
        assert_eq!(
            places.request(report(2), &in_queue("a"), &line, now),
            Answer::Granted
        );
        assert_eq!(
            places.request(report(3), &Place::Running, &line, now),
            Answer::Waiting { number: 1 }
        );
    }

    #[test]
    fn a_job_that_is_suspended_while_it_runs_makes_room_for_the_next() {
        let places = places(1);
        let line = [report(1), report(2)];
        let now = Instant::now();
        places.request(report(1), &Place::Running, &line, now);
        places.request(report(2), &Place::Running, &line, now);

        assert_eq!(places.hold(report(1), Place::Suspended(None), now), [report(2)]);
        assert_eq!(
            places.request(report(2), &Place::Running, &line, now),
            Answer::Granted
        );
    }
}
