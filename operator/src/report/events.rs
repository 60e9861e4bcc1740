//! Events: what happened to a report, once each, with the next command to type when it failed.

use domain::{BlobName, FailureReason};
use kube::Resource;
use kube::runtime::events::{Event, EventType};

use crds::conditions::{self, Status, reasons};
use crds::{PopularityReportStatus, names};

use super::dereference::World;
use crate::context::Context;
use crate::error_chain::error_chain;

/// The longest note that the API server takes
/// (<https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/>), in bytes.
const NOTE_MAX_BYTES: usize = 1_024;

/// Why a Job that exists is held back.
const SUSPENDED: [&str; 2] = [reasons::WAITING_FOR_ADMISSION, reasons::JOB_SUSPENDED];

/// The Events for what changed between two statuses.
pub fn of_change(earlier: Option<&PopularityReportStatus>, now: &PopularityReportStatus) -> Vec<Event> {
    let before = |type_| earlier.and_then(|status| conditions::find(&status.conditions, type_));
    let after = |type_| conditions::find(&now.conditions, type_);
    let became = |type_, status: Status| {
        after(type_).filter(|condition| {
            condition.status == status.as_str()
                && before(type_).is_none_or(|before| before.status != condition.status)
        })
    };
    let mut events = Vec::new();
    if let Some(launched) = became(conditions::LAUNCHED, Status::True) {
        let was_suspended =
            before(conditions::LAUNCHED).is_some_and(|before| SUSPENDED.contains(&before.reason.as_str()));
        events.push(if was_suspended {
            event(
                EventType::Normal,
                "JobResumed",
                "Launch",
                "The Job is no longer suspended.",
            )
        } else {
            event(
                EventType::Normal,
                reasons::JOB_CREATED,
                "Launch",
                &launched.message,
            )
        });
    }
    if let Some(launched) = after(conditions::LAUNCHED)
        && ([reasons::WAITING_FOR_PLACE, reasons::JOB_FORBIDDEN].contains(&launched.reason.as_str())
            || SUSPENDED.contains(&launched.reason.as_str()))
        && before(conditions::LAUNCHED).is_none_or(|before| before.reason != launched.reason)
    {
        let kind = match launched.reason.as_str() {
            reasons::JOB_FORBIDDEN => EventType::Warning,
            _ => EventType::Normal,
        };
        events.push(event(kind, &launched.reason, "Launch", &launched.message));
    }
    if let Some(succeeded) = became(conditions::SUCCEEDED, Status::True) {
        events.push(event(
            EventType::Normal,
            &succeeded.reason,
            "Export",
            &succeeded.message,
        ));
    }
    if let Some(failed) = became(conditions::SUCCEEDED, Status::False) {
        // its message ends with the next command
        events.push(event(
            EventType::Warning,
            &failed.reason,
            "Export",
            &failed.message,
        ));
    }
    events
}

/// The Event for a file that outlives its report for now.
pub fn blob_left_behind(blob: &BlobName, container: &str) -> Event {
    event(
        EventType::Warning,
        "BlobLeftBehind",
        "Delete",
        &format!(
            "Blob {blob} of container {container} could not be deleted for 5 minutes. The operator deletes it \
             when storage answers again. Next: az storage blob delete --container-name {container} --name {blob}"
        ),
    )
}

/// Sends an Event. A failure is logged and no more: what happened stands in the status.
pub async fn publish(context: &Context, world: &World, event: Event) {
    if let Err(error) = context
        .recorder
        .publish(&event, &world.object.object_ref(&()))
        .await
    {
        tracing::warn!(
            report.id = %world.report,
            event = event.reason,
            error = error_chain(&error),
            "an Event could not be sent"
        );
    }
}

/// What a person would type next to find out more.
pub fn next_command(reason: FailureReason, world: &World) -> String {
    let namespace = &world.reference.namespace;
    let object = &world.reference.name;
    let job = names::job(world.report);
    match reason {
        FailureReason::Cancelled | FailureReason::Deleted => {
            format!("kubectl -n {namespace} get popularityreports")
        }
        FailureReason::JobDeleted => {
            format!("kubectl -n {namespace} get events --field-selector involvedObject.name={job}")
        }
        FailureReason::JobRejected => {
            format!("kubectl -n {namespace} describe resourcequota,limitrange")
        }
        FailureReason::DeadlineExceeded | FailureReason::ExporterOutOfMemory => {
            format!("kubectl -n {namespace} describe job {job}")
        }
        FailureReason::InvalidParameters => {
            format!("kubectl -n {namespace} get popularityreport {object} -o yaml")
        }
        FailureReason::CatalogUnavailable
        | FailureReason::CatalogRejected
        | FailureReason::ExporterFailed
        | FailureReason::InvalidData
        | FailureReason::StorageRejected
        | FailureReason::StorageUnavailable => {
            format!(
                "kubectl -n {namespace} logs --tail=-1 -l {}={}",
                names::REPORT_ID_LABEL,
                world.report
            )
        }
    }
}

fn event(type_: EventType, reason: &str, action: &str, note: &str) -> Event {
    Event {
        type_,
        reason: reason.to_owned(),
        note: Some(shortened(note)),
        action: action.to_owned(),
        secondary: None,
    }
}

fn shortened(note: &str) -> String {
    const ELLIPSIS: &str = "…";
    if note.len() <= NOTE_MAX_BYTES {
        return note.to_owned();
    }
    let end = note.floor_char_boundary(NOTE_MAX_BYTES - ELLIPSIS.len());
    format!("{}{ELLIPSIS}", &note[..end])
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::places::Place;
    use crate::report::apply::{Applied, Outcome};
    use crate::report::publish_status::project;
    use crate::testing::*;

    fn status(world: World, outcome: Outcome, now: Timestamp) -> PopularityReportStatus {
        project(&Applied { world, outcome }, now)
    }

    fn told(earlier: Option<&PopularityReportStatus>, now: &PopularityReportStatus) -> Vec<String> {
        of_change(earlier, now)
            .into_iter()
            .map(|event| event.reason)
            .collect()
    }

    #[test]
    fn each_thing_that_happens_is_told_once() {
        let fresh = || world(object(json!({})));
        let waiting = |number| Outcome::Waiting {
            number,
            places: 1,
            place: Place::Running,
        };
        let steps = [
            status(fresh().with_row(accepted()), Outcome::Unchanged, noon_and(1)),
            status(fresh().with_row(dispatched()), waiting(2), noon_and(2)),
            status(fresh().with_row(dispatched()), waiting(1), noon_and(3)),
            status(
                fresh().with_row(dispatched()).with_job(job(json!({}))),
                Outcome::Changed,
                noon_and(4),
            ),
            status(
                fresh().with_row(processing()).with_job(job(json!({}))),
                Outcome::Unchanged,
                noon_and(5),
            ),
            status(
                fresh().with_row(completed()).with_job(job(json!({}))),
                Outcome::Unchanged,
                noon_and(9),
            ),
            status(
                fresh().with_row(completed()).with_job(job(json!({}))),
                Outcome::Unchanged,
                noon_and(10),
            ),
        ];

        let mut events = Vec::new();
        let mut earlier = None;
        for step in &steps {
            events.extend(told(earlier, step));
            earlier = Some(step);
        }

        assert_eq!(events, ["WaitingForPlace", "JobCreated", "Completed"]);
    }

    #[test]
    fn a_queue_that_admits_suspends_and_admits_again_is_told_each_time() {
        let fresh = || world(object(json!({})));
        let running = || job(json!({}));
        let steps = [
            fresh().with_row(dispatched()).with_job(suspended_job()),
            fresh().with_row(dispatched()).with_job(running()),
            fresh().with_row(processing()).with_job(running()),
            fresh().with_row(processing()).with_job(suspended_job()),
            fresh().with_row(processing()).with_job(running()),
        ];

        let mut events = Vec::new();
        let mut earlier = None;
        for step in steps {
            let now = status(step, Outcome::Unchanged, noon_and(1));
            events.extend(told(earlier.as_ref(), &now));
            earlier = Some(now);
        }

        assert_eq!(
            events,
            [
                "WaitingForAdmission",
                "JobResumed",
                "WaitingForAdmission",
                "JobResumed"
            ]
        );
    }

    #[test]
    fn a_failure_is_told_with_its_own_reason_and_the_next_command() {
        for reason in FailureReason::ALL {
            let now = status(
                world(object(json!({}))).with_row(failed(*reason)),
                Outcome::Unchanged,
                noon_and(9),
            );

            let events = of_change(None, &now);

            assert_eq!(events.len(), 1, "{reason}");
            assert_eq!(events[0].reason, reason.as_str());
            assert_eq!(events[0].type_, EventType::Warning);
            let note = events[0].note.clone().unwrap();
            assert!(note.contains(reason.advice()), "{note}");
            assert!(note.contains(" Next: kubectl -n music "), "{note}");
        }
    }

    #[test]
    fn a_note_is_never_longer_than_the_api_server_takes() {
        let long = event(EventType::Normal, "Long", "Test", &"é".repeat(2_000));

        let note = long.note.unwrap();
        assert!(note.len() <= NOTE_MAX_BYTES);
        assert!(note.ends_with('…'));
    }
}
