//! Step 2: what to do about what was found. Pure.

use std::time::Duration;

use domain::{Failure, FailureReason, ParameterErrors, Parameters, Progress, Report};
use jiff::{SignedDuration, Timestamp};

use crds::{DeletionPolicy, names};

use super::dereference::World;
use super::failure::{self, JobState};

/// How long a deletion waits for blob storage before it leaves the file to the sweep.
pub const BLOB_PATIENCE: SignedDuration = SignedDuration::from_mins(5);

/// How long after Service Bus accepted a message it is taken for lost: purged, expired or dead-lettered by the
/// broker after its most deliveries. Longer than ten locks of a minute. Should it come after all, it is
/// superseded.
const MESSAGE_LOST: SignedDuration = SignedDuration::from_mins(15);

/// The one thing to do now.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Nothing, ever: the object is on its way out and no business of ours any more.
    Ignore,
    /// Put our finalizer on the object before anything exists that it has to guard.
    Protect,
    /// The object came first: record row and outbox message.
    Adopt(Parameters),
    /// The object came first and asks for something that no export can give.
    Refuse(ParameterErrors),
    /// The row does not know this object yet: record it. (A new cluster, or the first sight of it.)
    Bind,
    /// A Job of an earlier object of the same report is in the way of ours.
    ClearWay,
    /// Its message is still on the way.
    AwaitDispatch,
    /// Its message has been on the way for so long that it must be lost: go on without it.
    Recover,
    /// It may run as soon as there is a place.
    Launch,
    /// Its Job lives.
    AwaitExport,
    /// It has to end without a file.
    Fail(Failure),
    /// It ended otherwise while its Job lives on.
    StopJob,
    /// It has ended; nothing to do for so long.
    Rest(Duration),
    /// It ended long ago: delete the object.
    Expire,
    /// The object is being deleted: its Job and Pods have to go first.
    RemoveWorkload,
    /// The object is being deleted and only the file is left.
    Release(Release),
}

/// The last step of a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release {
    /// Whether the file stays.
    pub retain: bool,
    /// From this moment on the object goes even if the file cannot be deleted.
    pub give_up_at: Timestamp,
}

/// Judges what was found at `now`.
pub fn decide(world: &World, now: Timestamp) -> Decision {
    let protected = world
        .object
        .metadata
        .finalizers
        .as_ref()
        .is_some_and(|finalizers| finalizers.iter().any(|name| name == names::FINALIZER));
    if let Some(deleted) = &world.object.metadata.deletion_timestamp {
        return if protected {
            on_deletion(world, deleted.0)
        } else {
            Decision::Ignore
        };
    }
    let Some(row) = &world.row else {
        if let Some(errors) = &world.unreadable {
            return Decision::Refuse(errors.clone());
        }
        return match world.object.spec.parameters() {
            Err(errors) => Decision::Refuse(errors),
            Ok(_) if !protected => Decision::Protect,
            Ok(parameters) => Decision::Adopt(parameters),
        };
    };
    if !protected {
        return Decision::Protect;
    }
    if world.job.is_some() && !world.owns_job() {
        return Decision::ClearWay;
    }
    if !world.is_bound() {
        return Decision::Bind;
    }
    match row.finished_at() {
        Some(finished) => after_the_end(world, row, finished, now),
        None => before_the_end(world, row, now),
    }
}

fn before_the_end(world: &World, row: &Report, now: Timestamp) -> Decision {
    if world.object.spec.cancel {
        return Decision::Fail(Failure::new(FailureReason::Cancelled, ""));
    }
    let Some(job) = &world.job else {
        let launched = world
            .object
            .status
            .as_ref()
            .is_some_and(|status| status.job.is_some());
        return if launched {
            Decision::Fail(Failure::new(FailureReason::JobDeleted, ""))
        } else if row.dispatched_at.is_none() && matches!(row.progress, Progress::Pending { .. }) {
            match row.relayed_at {
                Some(relayed) if now.duration_since(relayed) >= MESSAGE_LOST => Decision::Recover,
                _ => Decision::AwaitDispatch,
            }
        } else {
            Decision::Launch
        };
    };
    match failure::state(job) {
        // a suspended one waits for its queue, however long that takes
        JobState::Live | JobState::Suspended => Decision::AwaitExport,
        JobState::Deleting => Decision::Fail(Failure::new(FailureReason::JobDeleted, "")),
        JobState::Failed => {
            let remembered = failure::remembered(&world.object);
            Decision::Fail(failure::of_job(job, &world.pods, remembered))
        }
        // The exporter says that it is done only after the row says so: the row was written back, or
        // something else than our exporter ran.
        JobState::Complete => Decision::Fail(Failure::new(
            FailureReason::ExporterFailed,
            "the Job completed without finishing the report",
        )),
    }
}

fn after_the_end(world: &World, row: &Report, finished: Timestamp, now: Timestamp) -> Decision {
    let left_over = match world.job.as_ref().map(failure::state) {
        Some(JobState::Live) => matches!(row.progress, Progress::Failed { .. }),
        // nothing ends it, and its queue would keep it
        Some(JobState::Suspended) => true,
        _ => false,
    };
    if left_over {
        return Decision::StopJob;
    }
    let seconds = world.object.spec.ttl_seconds_after_finished;
    let time_to_live = finished.checked_add(SignedDuration::from_secs(seconds));
    // REST's promise ends at the row's own moment, whatever the object says
    let expiry = time_to_live.map_or(row.expires_at, |end| end.min(row.expires_at));
    match Duration::try_from(expiry.duration_since(now)) {
        Ok(left) if !left.is_zero() => Decision::Rest(left),
        _ => Decision::Expire,
    }
}

fn on_deletion(world: &World, deleted: Timestamp) -> Decision {
    if let Some(row) = &world.row
        && !row.state().is_terminal()
    {
        return Decision::Fail(Failure::new(FailureReason::Deleted, ""));
    }
    if world.job.as_ref().is_some_and(|_| world.owns_job()) || !world.pods.is_empty() {
        return Decision::RemoveWorkload;
    }
    let completed = world
        .row
        .as_ref()
        .is_some_and(|row| matches!(row.progress, Progress::Completed { .. }));
    Decision::Release(Release {
        // What a failed report left behind is no file that anybody can want.
        retain: completed && world.object.spec.deletion_policy == DeletionPolicy::Retain,
        give_up_at: deleted.checked_add(BLOB_PATIENCE).unwrap_or(deleted),
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::*;

    fn fails_with(reason: FailureReason) -> Decision {
        Decision::Fail(Failure::new(reason, ""))
    }

    fn deleted(over: Value) -> World {
        let mut object = object(over);
        object.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(noon()));
        world(object)
    }

    fn pod() -> k8s_openapi::api::core::v1::Pod {
        serde_json::from_value(json!({ "metadata": { "name": "left-over" } })).unwrap()
    }

    fn release(retain: bool) -> Decision {
        Decision::Release(Release {
            retain,
            give_up_at: noon_and(300),
        })
    }

    fn unbound(row: Report) -> Report {
        Report {
            custom_resource: None,
            ..row
        }
    }

    fn of_another_object(row: Report) -> Report {
        let other = domain::CustomResourceRef {
            uid: "another".to_owned(),
            ..reference()
        };
        Report {
            custom_resource: Some(other),
            ..row
        }
    }

    #[rstest]
    #[case::it_came_first(world(object(json!({}))), Decision::Adopt(Parameters::default()))]
    #[case::it_came_first_and_is_not_protected(
        world(object(json!({"metadata": {"finalizers": ["other/one"]}}))),
        Decision::Protect
    )]
    #[case::it_was_made_for_a_row_and_is_not_protected(
        world(object(json!({"metadata": {"finalizers": null}}))).with_row(accepted()),
        Decision::Protect
    )]
    #[case::the_row_has_not_seen_it(world(object(json!({}))).with_row(unbound(accepted())), Decision::Bind)]
    #[case::it_was_rebuilt(world(object(json!({}))).with_row(of_another_object(processing())), Decision::Bind)]
    #[case::not_relayed(world(object(json!({}))).with_row(accepted()), Decision::AwaitDispatch)]
    #[case::dispatched(world(object(json!({}))).with_row(dispatched()), Decision::Launch)]
    #[case::rebuilt_while_its_exporter_ran(world(object(json!({}))).with_row(processing()), Decision::Launch)]
    #[case::its_job_lives(
        world(object(json!({"status": launched()}))).with_row(processing()).with_job(job(json!({}))),
        Decision::AwaitExport
    )]
    #[case::its_job_was_created_and_the_status_not_written(
        world(object(json!({}))).with_row(dispatched()).with_job(job(json!({}))),
        Decision::AwaitExport
    )]
    #[case::its_job_waits_for_its_queue(
        world(object(json!({"status": launched()}))).with_row(dispatched()).with_job(suspended_job()),
        Decision::AwaitExport
    )]
    #[case::its_job_was_suspended_while_its_exporter_ran(
        world(object(json!({"status": launched()}))).with_row(processing()).with_job(suspended_job()),
        Decision::AwaitExport
    )]
    #[case::its_job_is_failing_and_pods_are_ending(
        world(object(json!({"status": launched()}))).with_row(processing()).with_job(job(json!({
            "status": {"conditions": [{"type": "FailureTarget", "status": "True"}]}
        }))),
        Decision::AwaitExport
    )]
    #[case::a_job_of_an_earlier_object_is_in_the_way(
        world(object(json!({}))).with_row(of_another_object(dispatched())).with_job(job(json!({
            "metadata": {"ownerReferences": [{
                "apiVersion": "reports.musicalbums.dev/v1alpha1", "kind": "PopularityReport", "name": NAME, "uid": "another",
            }]}
        }))),
        Decision::ClearWay
    )]
    #[case::its_job_is_gone(
        world(object(json!({"status": launched()}))).with_row(processing()),
        fails_with(FailureReason::JobDeleted)
    )]
    #[case::its_job_is_being_deleted(
        world(object(json!({"status": launched()}))).with_row(processing()).with_job(job(json!({
            "metadata": {"deletionTimestamp": "2026-05-31T12:00:00Z"}
        }))),
        fails_with(FailureReason::JobDeleted)
    )]
    #[case::its_job_ran_out_of_time(
        world(object(json!({"status": launched()}))).with_row(processing()).with_job(failed_job("DeadlineExceeded")),
        fails_with(FailureReason::DeadlineExceeded)
    )]
    #[case::its_job_says_done_and_the_row_does_not(
        world(object(json!({"status": launched()}))).with_row(processing()).with_job(job(json!({
            "status": {"conditions": [{"type": "Complete", "status": "True"}]}
        }))),
        Decision::Fail(Failure::new(
            FailureReason::ExporterFailed,
            "the Job completed without finishing the report"
        ))
    )]
    #[case::cancelled_before_its_message_came(
        world(object(json!({"spec": {"cancel": true}}))).with_row(accepted()),
        fails_with(FailureReason::Cancelled)
    )]
    #[case::cancelled_while_its_exporter_runs(
        world(object(json!({"spec": {"cancel": true}, "status": launched()})))
            .with_row(processing()).with_job(job(json!({}))),
        fails_with(FailureReason::Cancelled)
    )]
    #[case::cancelled_too_late(
        world(object(json!({"spec": {"cancel": true}}))).with_row(completed()),
        Decision::Rest(Duration::from_secs(604_800 + 9 - 60))
    )]
    #[case::ended_over_rest_while_its_job_runs(
        world(object(json!({"status": launched()}))).with_row(failed(FailureReason::Cancelled)).with_job(job(json!({}))),
        Decision::StopJob
    )]
    #[case::cancelled_while_its_job_waits_for_its_queue(
        world(object(json!({"status": launched()}))).with_row(failed(FailureReason::Cancelled)).with_job(suspended_job()),
        Decision::StopJob
    )]
    #[case::completed_and_its_job_was_suspended_before_its_end(
        world(object(json!({"status": launched()}))).with_row(completed()).with_job(suspended_job()),
        Decision::StopJob
    )]
    #[case::completed_while_its_job_is_about_to_end(
        world(object(json!({"status": launched()}))).with_row(completed()).with_job(job(json!({}))),
        Decision::Rest(Duration::from_secs(604_800 + 9 - 60))
    )]
    #[case::its_time_is_almost_over(
        world(object(json!({"spec": {"ttlSecondsAfterFinished": 52}}))).with_row(completed()),
        Decision::Rest(Duration::from_secs(1))
    )]
    #[case::its_time_is_over(
        world(object(json!({"spec": {"ttlSecondsAfterFinished": 51}}))).with_row(completed()),
        Decision::Expire
    )]
    #[case::the_row_has_expired_before_its_time_to_live(
        world(object(json!({}))).with_row(Report { expires_at: noon_and(60), ..completed() }),
        Decision::Expire
    )]
    #[case::deleted_and_no_longer_ours(
        deleted(json!({"metadata": {"finalizers": null}})).with_row(completed()),
        Decision::Ignore
    )]
    #[case::deleted_before_it_had_a_row(deleted(json!({})), release(false))]
    #[case::deleted_before_its_end(
        deleted(json!({})).with_row(processing()).with_job(job(json!({}))),
        fails_with(FailureReason::Deleted)
    )]
    #[case::deleted_and_its_job_is_there(
        deleted(json!({})).with_row(completed()).with_job(job(json!({}))),
        Decision::RemoveWorkload
    )]
    #[case::deleted_and_a_pod_is_left(
        World { pods: vec![pod()], ..deleted(json!({})).with_row(completed()) },
        Decision::RemoveWorkload
    )]
    #[case::deleted_with_its_file(deleted(json!({})).with_row(completed()), release(false))]
    #[case::deleted_and_its_file_stays(
        deleted(json!({"spec": {"deletionPolicy": "Retain"}})).with_row(completed()),
        release(true)
    )]
    #[case::deleted_and_what_a_failure_left_behind_does_not_stay(
        deleted(json!({"spec": {"deletionPolicy": "Retain"}})).with_row(failed(FailureReason::ExporterFailed)),
        release(false)
    )]
    fn what_is_seen_decides(#[case] world: World, #[case] decision: Decision) {
        assert_eq!(decide(&world, noon_and(60)), decision);
    }

    #[rstest]
    #[case::just_before(900, Decision::AwaitDispatch)]
    #[case::then(901, Decision::Recover)]
    fn a_message_that_does_not_come_is_lost_in_the_end(#[case] second: i64, #[case] decision: Decision) {
        let relayed = Report {
            relayed_at: Some(noon_and(1)),
            ..accepted()
        };

        assert_eq!(
            decide(&world(object(json!({}))).with_row(relayed), noon_and(second)),
            decision
        );
    }

    #[test]
    fn an_object_whose_parameters_slipped_past_the_rules_is_refused() {
        let world = world(object(json!({"spec": {"limit": 0}})));

        match decide(&world, noon()) {
            Decision::Refuse(errors) => assert_eq!(errors.0[0].property, "limit"),
            other => panic!("{other:?}"),
        }
    }
}
