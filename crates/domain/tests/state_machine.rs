//! The states and the ways between them, against `docs/state-machine.md`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in an integration target clippy's leave for tests reaches the test functions only"
)]

use domain::{
    Artifact, AttemptNumber, BlobName, Compression, Event, Failure, FailureReason, InvalidTransition,
    Progress, ReportId, SCHEMA, Sha256, State,
};
use jiff::Timestamp;
use proptest::prelude::*;
use uuid::Uuid;

const TABLE: &str = include_str!("../../../docs/state-machine.md");

fn at(second: i64) -> Timestamp {
    Timestamp::new(1_772_359_200 + second, 0).unwrap()
}

fn an_artifact() -> Artifact {
    Artifact {
        container: "reports".to_owned(),
        blob: BlobName::of(ReportId::new(Uuid::from_u128(7)), Compression::None),
        bytes: 2_048,
        rows: 12,
        sha256: Sha256::new([7; 32]),
        content_type: "text/csv; charset=utf-8".to_owned(),
        schema: SCHEMA.to_owned(),
        data_as_of: at(50),
    }
}

fn a_failure() -> Failure {
    Failure::new(FailureReason::DeadlineExceeded, "")
}

/// The stages of the table, by the names that it gives them.
fn stages() -> [(&'static str, Progress); 5] {
    [
        ("Pending", Progress::accepted()),
        (
            "Pending, dispatched",
            Progress::Pending {
                dispatched_at: Some(at(1)),
            },
        ),
        (
            "Processing",
            Progress::Processing {
                attempt: AttemptNumber::new(1),
                started_at: at(2),
            },
        ),
        (
            "Completed",
            Progress::Completed {
                artifact: an_artifact(),
                finished_at: at(3),
            },
        ),
        (
            "Failed",
            Progress::Failed {
                failure: a_failure(),
                finished_at: at(3),
            },
        ),
    ]
}

fn stage(progress: &Progress) -> &'static str {
    match progress {
        Progress::Pending { dispatched_at: None } => "Pending",
        Progress::Pending {
            dispatched_at: Some(_),
        } => "Pending, dispatched",
        Progress::Processing { .. } => "Processing",
        Progress::Completed { .. } => "Completed",
        Progress::Failed { .. } => "Failed",
    }
}

fn after(progress: Progress, event: Event, now: Timestamp) -> Result<Progress, InvalidTransition> {
    match event {
        Event::Dispatch => progress.dispatch(now),
        Event::Begin => progress.begin(now),
        Event::Complete => progress.complete(an_artifact(), now),
        Event::Fail => progress.fail(a_failure(), now),
    }
}

/// The rows of the document's table: state, event, next, and the other three cells.
fn documented() -> Vec<[&'static str; 6]> {
    TABLE
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| ---") && !line.starts_with("| state"))
        .map(|line| {
            let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
            cells
                .try_into()
                .unwrap_or_else(|cells| panic!("a row of six cells: {cells:?}"))
        })
        .collect()
}

#[test]
fn the_document_tells_every_pair_of_state_and_event_as_the_code_has_it() {
    let by_the_code: Vec<_> = stages()
        .into_iter()
        .flat_map(|(name, progress)| {
            Event::ALL.map(|event| {
                let next = after(progress.clone(), event, at(9));
                (name, event.as_str(), next.as_ref().map_or("refused", stage))
            })
        })
        .collect();

    let by_the_document: Vec<_> = documented()
        .into_iter()
        .map(|[state, event, next, ..]| (state, event, next))
        .collect();

    assert_eq!(by_the_document, by_the_code);
}

#[test]
fn the_document_names_actor_remains_and_repair_wherever_something_happens() {
    for [state, event, next, actor, remains, repair] in documented() {
        let moved = next != "refused";
        assert_eq!(
            moved,
            !actor.is_empty(),
            "{state} x {event}: an actor where there is a move"
        );
        assert!(
            !moved || !remains.is_empty(),
            "{state} x {event}: what a crash leaves"
        );
        assert_eq!(
            remains.is_empty(),
            repair.is_empty(),
            "{state} x {event}: remains and repair"
        );
    }
}

#[test]
fn progress_and_state_agree_but_for_a_second_dispatch() {
    for (name, progress) in stages() {
        for event in Event::ALL {
            let by_state = progress.state().after(event);
            let by_progress = after(progress.clone(), event, at(9)).map(|next| next.state());
            if (name, event) == ("Pending, dispatched", Event::Dispatch) {
                assert_eq!(by_state, Ok(State::Pending));
                assert!(by_progress.is_err(), "a second message counts as superseded");
            } else {
                assert_eq!(by_progress, by_state, "{name} x {event}");
            }
        }
    }
}

#[test]
fn a_refusal_says_from_where_and_by_what() {
    for (name, progress) in stages() {
        for event in Event::ALL {
            if let Err(refusal) = after(progress.clone(), event, at(9)) {
                let expected = InvalidTransition {
                    from: progress.state(),
                    event,
                };
                assert_eq!(refusal, expected, "{name} x {event}");
            }
        }
    }
    let refusal = State::Failed.after(Event::Begin).unwrap_err();
    assert_eq!(refusal.to_string(), "a report that is Failed takes no Begin");
}

#[test]
fn every_state_reads_back_from_its_word_and_no_other_word_does() {
    for state in State::ALL {
        assert_eq!(state.as_str().parse(), Ok(state));
    }
    for word in ["", "pending", "Running", "Pending "] {
        let error = word.parse::<State>().unwrap_err();
        assert_eq!(error.to_string(), format!("'{word}' is not a report state"));
    }
}

fn any_event() -> impl Strategy<Value = Event> {
    prop::sample::select(Event::ALL.as_slice())
}

proptest! {
    #[test]
    fn no_sequence_of_events_leaves_a_terminal_state(events in prop::collection::vec(any_event(), 0..40)) {
        let mut progress = Progress::accepted();
        for (second, event) in (100..).zip(events) {
            let before = progress.clone();
            progress = match after(progress, event, at(second)) {
                Ok(next) => {
                    prop_assert!(!before.state().is_terminal(), "{before:?} took {event}");
                    prop_assert!(next.state() >= before.state(), "{before:?} went back to {next:?}");
                    next
                }
                Err(_) => before,
            };
        }
    }

    #[test]
    fn attempts_are_counted_one_by_one_from_the_first_start(begins in 1_u32..50) {
        let mut progress = Progress::accepted();
        for attempt in 1..=begins {
            progress = progress.begin(at(i64::from(attempt))).unwrap();
            prop_assert_eq!(&progress, &Progress::Processing {
                attempt: AttemptNumber::new(attempt),
                started_at: at(1),
            });
        }
    }
}
