//! The types and reasons of a report's conditions, and how a list of them is brought up to date.

use std::fmt;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The row exists.
pub const ACCEPTED: &str = "Accepted";
/// Service Bus has the report's message.
pub const RELAYED: &str = "Relayed";
/// The consumer took the message from the queue.
pub const DISPATCHED: &str = "Dispatched";
/// The exporter's Job was created, and nothing holds it back.
pub const LAUNCHED: &str = "Launched";
/// `Unknown` until the end, then whether there is a file. Its reason is the short answer to "where is
/// it, and why": the printer column REASON shows it.
pub const SUCCEEDED: &str = "Succeeded";
/// True at either end, for `kubectl wait --for=condition=Finished`.
pub const FINISHED: &str = "Finished";

/// Reasons besides those of [`domain::FailureReason`].
pub mod reasons {
    /// Accepted: the row exists.
    pub const ROW_RECORDED: &str = "RowRecorded";
    /// Relayed: the broker confirmed the message.
    pub const MESSAGE_ACCEPTED: &str = "MessageAccepted";
    /// Relayed, Succeeded: the message is in the outbox.
    pub const WAITING_FOR_SERVICE_BUS: &str = "WaitingForServiceBus";
    /// Dispatched: the consumer recorded the message.
    pub const MESSAGE_RECEIVED: &str = "MessageReceived";
    /// Dispatched, Succeeded: the message is in the queue.
    pub const WAITING_IN_QUEUE: &str = "WaitingInQueue";
    /// Launched, Succeeded: every place for an exporter is taken.
    pub const WAITING_FOR_PLACE: &str = "WaitingForPlace";
    /// Launched, Succeeded: not dispatched yet.
    pub const NOT_DISPATCHED: &str = "NotDispatched";
    /// Launched, Succeeded: the API server refuses the Job for now.
    pub const JOB_FORBIDDEN: &str = "JobForbidden";
    /// Launched, Succeeded: the Job exists, suspended until its queue admits it.
    pub const WAITING_FOR_ADMISSION: &str = "WaitingForAdmission";
    /// Launched, Succeeded: the Job is suspended, and has no queue that would resume it.
    pub const JOB_SUSPENDED: &str = "JobSuspended";
    /// Succeeded: an exporter was at work when the Job was suspended.
    pub const EXPORT_SUSPENDED: &str = "ExportSuspended";
    /// Launched: the Job exists.
    pub const JOB_CREATED: &str = "JobCreated";
    /// Succeeded: the Job exists and no exporter has begun.
    pub const STARTING: &str = "Starting";
    /// Succeeded: an exporter is at work.
    pub const EXPORTING: &str = "Exporting";
    /// Succeeded, Finished: the file is there.
    pub const COMPLETED: &str = "Completed";
    /// Finished: not at an end yet.
    pub const IN_PROGRESS: &str = "InProgress";
    /// Launched: the report ended without a Job.
    pub const NOT_LAUNCHED: &str = "NotLaunched";
}

/// The three values of a condition's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It is not known yet.
    Unknown,
}

impl Status {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is to be said about one condition, without the moment since which it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// One of the constants of this module.
    pub type_: &'static str,
    /// Whether it holds.
    pub status: Status,
    /// CamelCase, for programs.
    pub reason: &'static str,
    /// A sentence, for people.
    pub message: String,
}

/// The conditions to publish: each statement, with the time of the earlier condition as long as its
/// status is the same, else `now`.
///
/// The rule of `meta/v1.Condition`: `lastTransitionTime` is when the status last flipped, not when
/// reason or message last changed.
pub fn restate(
    earlier: &[Condition],
    statements: &[Statement],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    statements
        .iter()
        .map(|statement| {
            let since = earlier
                .iter()
                .find(|condition| condition.type_ == statement.type_)
                .filter(|condition| condition.status == statement.status.as_str())
                .map_or_else(
                    || whole_seconds(now),
                    |condition| condition.last_transition_time.0,
                );
            Condition {
                type_: statement.type_.to_owned(),
                status: statement.status.to_string(),
                reason: statement.reason.to_owned(),
                message: statement.message.clone(),
                last_transition_time: Time(since),
                observed_generation: generation,
            }
        })
        .collect()
}

/// `meta/v1.Time` has whole seconds on the wire: a finer moment would never compare as unchanged.
fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// Finds a condition by its type.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn launched(status: Status, reason: &'static str, message: &str) -> Statement {
        Statement {
            type_: LAUNCHED,
            status,
            reason,
            message: message.to_owned(),
        }
    }

    #[test]
    fn the_transition_time_stays_while_only_reason_and_message_change() {
        let first = restate(
            &[],
            &[launched(Status::False, "NotDispatched", "in the queue")],
            Some(1),
            at(100),
        );

        let second = restate(
            &first,
            &[launched(Status::False, "WaitingForPlace", "place 3")],
            Some(1),
            at(200),
        );

        assert_eq!(second[0].last_transition_time, Time(at(100)));
        assert_eq!(second[0].reason, "WaitingForPlace");
    }

    #[test]
    fn the_transition_time_moves_when_the_status_flips() {
        let first = restate(&[], &[launched(Status::False, "A", "a")], Some(1), at(100));

        let second = restate(&first, &[launched(Status::True, "B", "b")], Some(1), at(200));

        assert_eq!(second[0].last_transition_time, Time(at(200)));
    }

    #[test]
    fn the_transition_time_is_what_the_wire_can_carry() {
        let now = "2026-01-31T00:00:00.75Z".parse().unwrap();

        let conditions = restate(&[], &[launched(Status::True, "A", "a")], None, now);

        assert_eq!(
            conditions[0].last_transition_time.0.to_string(),
            "2026-01-31T00:00:00Z"
        );
    }
}
