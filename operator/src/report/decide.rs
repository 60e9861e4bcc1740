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
        JobState::Live => Decision::AwaitExport,
        JobState::Deleting => Decision::Fail(Failure::new(FailureReason::JobDeleted, "")),
        JobState::Failed => Decision::Fail(failure::of_job(job, &world.pods)),
        // The exporter says that it is done only after the row says so: the row was written back, or
        // something else than our exporter ran.
        JobState::Complete => Decision::Fail(Failure::new(
            FailureReason::ExporterFailed,
            "the Job completed without finishing the report",
        )),
    }
}

fn after_the_end(world: &World, row: &Report, finished: Timestamp, now: Timestamp) -> Decision {
    let live = world
        .job
        .as_ref()
        .is_some_and(|job| failure::state(job) == JobState::Live);
    if live && matches!(row.progress, Progress::Failed { .. }) {
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
