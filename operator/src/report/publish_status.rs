//! Step 5: say where the report is, when there is news. Client required; what to say is pure.

use domain::{Progress, Report};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use runtime::crash_point;
use serde_json::json;

use crds::conditions::{self, Statement, Status, reasons};
use crds::{ArtifactStatus, JobReference, Phase, PopularityReport, PopularityReportStatus, names};

use super::apply::{Applied, Outcome};
use super::dereference::World;
use super::{events, failure};
use crate::context::Context;
use crate::places::{Place, queue_of};

/// Why the status could not be published.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server did not take it.
    #[error("failed to apply the status of the PopularityReport")]
    Patch(#[source] kube::Error),
}

/// Publishes the status if it differs from what is there, and then Events for what has happened.
///
/// # Errors
/// [`Error`]
pub async fn publish_status(context: &Context, applied: &Applied) -> Result<(), Error> {
    let world = &applied.world;
    if applied.outcome == Outcome::Gone {
        return Ok(());
    }
    let status = project(applied, context.now());
    if world.object.status.as_ref() == Some(&status) {
        return Ok(());
    }
    if status.finished_at.is_some() {
        crash_point("controller.before-final-status");
    }
    let patch = json!({
        "apiVersion": PopularityReport::api_version(&()),
        "kind": PopularityReport::kind(&()),
        // the uid makes it a conflict instead of a lie when another object of the name has come meanwhile
        "metadata": { "name": world.reference.name, "uid": world.reference.uid },
        "status": status,
    });
    let objects: Api<PopularityReport> = Api::namespaced(context.client.clone(), &world.reference.namespace);
    let parameters = PatchParams::apply(names::FIELD_MANAGER).force();
    match objects
        .patch_status(&world.reference.name, &parameters, &Patch::Apply(&patch))
        .await
    {
        Ok(_) => {}
        // deleted meanwhile: nobody is left to tell
        Err(kube::Error::Api(answer)) if answer.code == 404 => return Ok(()),
        Err(error) => return Err(Error::Patch(error)),
    }
    let earlier = world.object.status.as_ref();
    context.metrics.published(earlier, &status);
    for event in events::of_change(earlier, &status) {
        events::publish(context, world, event).await;
    }
    Ok(())
}

/// The status to publish: row, Job and what came of the plan, in the words of the conditions.
pub fn project(applied: &Applied, now: Timestamp) -> PopularityReportStatus {
    let world = &applied.world;
    let generation = world.object.meta().generation;
    let earlier = world.object.status.as_ref();
    let job = job_reference(world);
    let statements = match &world.row {
        Some(row) => of_row(row, job.as_ref(), applied),
        None => without_row(world),
    };
    let conditions = conditions::restate(
        earlier.map_or(&[] as &[Condition], |status| &status.conditions),
        &statements,
        generation,
        now,
    );
    let row = world.row.as_ref();
    PopularityReportStatus {
        phase: Some(Phase::of(&conditions)),
        observed_generation: generation,
        report_id: row.map(|row| row.id.to_string()),
        parameters: row.map(|row| json!(row.parameters)),
        attempts: row.map_or(0, |row| row.attempts.get()),
        job,
        artifact: row.and_then(|row| match &row.progress {
            Progress::Completed { artifact, .. } => Some(ArtifactStatus::from(artifact)),
            _ => None,
        }),
        started_at: row.and_then(|row| row.started_at),
        finished_at: row.and_then(Report::finished_at),
        conditions,
    }
}

/// The Job of ours that is there; else, when there was one, the one that the status knew. A status that came
/// with a restored object, whose row knows another, tells of a Job of another cluster.
fn job_reference(world: &World) -> Option<JobReference> {
    if world.owns_job() {
        return world.job.as_ref().map(|job| JobReference {
            name: job.name_any(),
            uid: job.uid().unwrap_or_default(),
        });
    }
    let earlier = world.object.status.as_ref()?;
    let job = earlier.job.clone()?;
    let ours = earlier.report_id.as_deref() == Some(world.report.to_string().as_str());
    (ours && !world.was_rebound).then_some(job)
}

fn statement(
    type_: &'static str,
    status: Status,
    reason: &'static str,
    message: impl Into<String>,
) -> Statement {
    Statement {
        type_,
        status,
        reason,
        message: message.into(),
    }
}

/// An object that came first and has no row: not yet, or never.
fn without_row(world: &World) -> Vec<Statement> {
    let errors = match (&world.unreadable, world.object.spec.parameters()) {
        (Some(errors), _) => errors.clone(),
        (None, Err(errors)) => errors,
        (None, Ok(_)) => {
            let message = "The report is about to be recorded.";
            return vec![
                statement(
                    conditions::ACCEPTED,
                    Status::Unknown,
                    reasons::IN_PROGRESS,
                    message,
                ),
                statement(
                    conditions::SUCCEEDED,
                    Status::Unknown,
                    reasons::IN_PROGRESS,
                    message,
                ),
                statement(conditions::FINISHED, Status::False, reasons::IN_PROGRESS, message),
            ];
        }
    };
    let reason = domain::FailureReason::InvalidParameters;
    let message = domain::Failure::new(reason, &errors.to_string()).message;
    vec![
        statement(conditions::ACCEPTED, Status::False, reason.as_str(), &message),
        statement(conditions::SUCCEEDED, Status::False, reason.as_str(), &message),
        statement(conditions::FINISHED, Status::True, reason.as_str(), &message),
    ]
}

fn of_row(row: &Report, job: Option<&JobReference>, applied: &Applied) -> Vec<Statement> {
    let (succeeded, finished) = end(row, &applied.world).unwrap_or_else(|| {
        let (reason, message) = progress(row, job, applied);
        (
            statement(conditions::SUCCEEDED, Status::Unknown, reason, message),
            statement(
                conditions::FINISHED,
                Status::False,
                reasons::IN_PROGRESS,
                "The report has not ended.",
            ),
        )
    });
    vec![
        statement(
            conditions::ACCEPTED,
            Status::True,
            reasons::ROW_RECORDED,
            format!("The report is recorded as {}.", row.id),
        ),
        relayed(row),
        dispatched(row),
        launched(row, job, applied),
        succeeded,
        finished,
    ]
}

fn relayed(row: &Report) -> Statement {
    match row.relayed_at {
        Some(_) => statement(
            conditions::RELAYED,
            Status::True,
            reasons::MESSAGE_ACCEPTED,
            "Service Bus has accepted the report's message.",
        ),
        None => statement(
            conditions::RELAYED,
            Status::False,
            reasons::WAITING_FOR_SERVICE_BUS,
            "The report's message is in the outbox until Service Bus accepts it.",
        ),
    }
}

fn dispatched(row: &Report) -> Statement {
    match row.dispatched_at {
        Some(_) => statement(
            conditions::DISPATCHED,
            Status::True,
            reasons::MESSAGE_RECEIVED,
            "The report's message has come out of the queue.",
        ),
        None => statement(
            conditions::DISPATCHED,
            Status::False,
            reasons::WAITING_IN_QUEUE,
            "The report's message has not come out of the queue yet.",
        ),
    }
}

fn launched(row: &Report, job: Option<&JobReference>, applied: &Applied) -> Statement {
    if let Some((reason, message)) = suspended(&applied.world)
        && !row.state().is_terminal()
    {
        return statement(conditions::LAUNCHED, Status::False, reason, message);
    }
    if let Some(job) = job {
        let message = format!("Job {} was created.", job.name);
        return statement(conditions::LAUNCHED, Status::True, reasons::JOB_CREATED, message);
    }
    if row.state().is_terminal() {
        return statement(
            conditions::LAUNCHED,
            Status::False,
            reasons::NOT_LAUNCHED,
            "The report ended without a Job.",
        );
    }
    let (reason, message) = not_launched(row, &applied.outcome);
    statement(conditions::LAUNCHED, Status::False, reason, message)
}

/// What holds a Job back that exists.
fn suspended(world: &World) -> Option<(&'static str, String)> {
    let job = world.suspended_job()?;
    let name = job.name_any();
    Some(match queue_of(job) {
        Some(queue) => (
            reasons::WAITING_FOR_ADMISSION,
            format!("Job {name} is suspended until queue {queue} admits it."),
        ),
        None => (
            reasons::JOB_SUSPENDED,
            format!(
                "Job {name} is suspended, and has no queue that would resume it. Next: kubectl -n {} patch job \
                 {name} --type merge -p '{{\"spec\":{{\"suspend\":false}}}}'",
                world.reference.namespace
            ),
        ),
    })
}

fn not_launched(row: &Report, outcome: &Outcome) -> (&'static str, String) {
    match outcome {
        Outcome::Waiting {
            number,
            places,
            place,
        } => {
            let what = match place {
                Place::Running => "exporters".to_owned(),
                Place::Suspended(queue) => {
                    format!("suspended Jobs of queue {}", queue.as_deref().unwrap_or_default())
                }
            };
            (
                reasons::WAITING_FOR_PLACE,
                format!("All {places} places for {what} are taken; this report is number {number} in line."),
            )
        }
        Outcome::Forbidden(message) => (
            reasons::JOB_FORBIDDEN,
            format!("The cluster forbids the Job for now; it is tried again: {message}"),
        ),
        _ if row.dispatched_at.is_none() => (
            reasons::NOT_DISPATCHED,
            "The report's message has to come out of the queue first.".to_owned(),
        ),
        _ => (reasons::STARTING, "The Job is about to be created.".to_owned()),
    }
}

/// Reason and message of a report that has not ended: the reason alone says where it is.
fn progress(row: &Report, job: Option<&JobReference>, applied: &Applied) -> (&'static str, String) {
    let suspended = suspended(&applied.world);
    if matches!(row.progress, Progress::Processing { .. }) {
        if let Some((_, why)) = suspended {
            return (
                reasons::EXPORT_SUSPENDED,
                format!("The exporter was stopped, and another attempt follows. {why}"),
            );
        }
        let attempt = row.attempts;
        return (
            reasons::EXPORTING,
            format!("The exporter is at work; this is attempt {attempt}."),
        );
    }
    if let Some(held_back) = suspended {
        return held_back;
    }
    if job.is_some() {
        let pods = &applied.world.pods;
        // Between the deadline and the Job's end the Pod is on its way out: what was said of it stays.
        let may_start = |pod: &Pod| pod.metadata.deletion_timestamp.is_none();
        let remembered =
            || failure::remembered(&applied.world.object).filter(|_| !pods.iter().any(may_start));
        let message = match failure::waiting(pods).or_else(remembered) {
            Some(words) => format!("{}{words}", failure::NOT_STARTING),
            None => "The exporter's Pod is about to start.".to_owned(),
        };
        return (reasons::STARTING, message);
    }
    if row.relayed_at.is_none() {
        let relayed = relayed(row);
        return (relayed.reason, relayed.message);
    }
    if row.dispatched_at.is_none() {
        let dispatched = dispatched(row);
        return (dispatched.reason, dispatched.message);
    }
    not_launched(row, &applied.outcome)
}

/// The two last conditions of a report that has ended.
fn end(row: &Report, world: &World) -> Option<(Statement, Statement)> {
    let (status, reason, message) = match &row.progress {
        Progress::Completed { artifact, .. } => (
            Status::True,
            reasons::COMPLETED,
            format!(
                "{} rows, {} bytes in {} of container {}.",
                artifact.rows, artifact.bytes, artifact.blob, artifact.container
            ),
        ),
        Progress::Failed { failure, .. } => (
            Status::False,
            failure.reason.as_str(),
            format!(
                "{} Next: {}",
                failure.message,
                events::next_command(failure.reason, world)
            ),
        ),
        Progress::Pending { .. } | Progress::Processing { .. } => return None,
    };
    Some((
        statement(conditions::SUCCEEDED, status, reason, message.clone()),
        statement(conditions::FINISHED, Status::True, reason, message),
    ))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::testing::{dispatched, launched, *};

    fn applied(world: World, outcome: Outcome) -> Applied {
        Applied { world, outcome }
    }

    fn fresh() -> World {
        world(object(json!({})))
    }

    fn launched_world() -> World {
        world(object(json!({"status": launched()})))
    }

    /// Every row state with every stage of it: what is told is in the snapshots.
    #[rstest]
    #[case::accepted(applied(fresh().with_row(accepted()), Outcome::Unchanged))]
    #[case::relayed(applied(
        fresh().with_row(Report { relayed_at: Some(noon_and(1)), ..accepted() }),
        Outcome::Unchanged
    ))]
    #[case::waiting(applied(
        fresh().with_row(dispatched()),
        Outcome::Waiting { number: 3, places: 10, place: Place::Running }
    ))]
    #[case::forbidden(applied(
        fresh().with_row(dispatched()),
        Outcome::Forbidden("exceeded quota: count/jobs.batch".to_owned())
    ))]
    #[case::launched(applied(fresh().with_row(dispatched()).with_job(job(json!({}))), Outcome::Changed))]
    #[case::not_starting(applied(
        World {
            pods: vec![serde_json::from_value(json!({
                "metadata": {"name": "p"},
                "status": {"containerStatuses": [{
                    "name": "exporter", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}},
                }]},
            })).unwrap()],
            ..launched_world().with_row(dispatched()).with_job(job(json!({})))
        },
        Outcome::Unchanged
    ))]
    #[case::processing(applied(launched_world().with_row(processing()).with_job(job(json!({}))), Outcome::Unchanged))]
    #[case::completed(applied(launched_world().with_row(completed()), Outcome::Unchanged))]
    #[case::failed(applied(
        launched_world().with_row(failed(domain::FailureReason::StorageRejected)),
        Outcome::Unchanged
    ))]
    #[case::cancelled_before_launch(applied(
        fresh().with_row(row(Progress::Failed {
            failure: domain::Failure::new(domain::FailureReason::Cancelled, ""),
            finished_at: noon_and(9),
        })),
        Outcome::Unchanged
    ))]
    #[case::waiting_for_a_place_in_its_queue(applied(
        fresh().with_row(dispatched()),
        Outcome::Waiting { number: 3, places: 10, place: Place::Suspended(Some("nightly".to_owned())) }
    ))]
    #[case::waiting_for_its_queue(applied(
        launched_world().with_row(dispatched()).with_job(suspended_job()),
        Outcome::Unchanged
    ))]
    #[case::suspended_while_processing(applied(
        launched_world().with_row(processing()).with_job(suspended_job()),
        Outcome::Unchanged
    ))]
    #[case::suspended_by_hand(applied(
        launched_world().with_row(dispatched()).with_job(job(json!({"spec": {"suspend": true, "template": {}}}))),
        Outcome::Unchanged
    ))]
    #[case::completed_and_its_job_was_suspended(applied(
        launched_world().with_row(completed()).with_job(suspended_job()),
        Outcome::Unchanged
    ))]
    #[case::refused(applied(world(object(json!({"spec": {"limit": 0}}))), Outcome::Unchanged))]
    fn the_status_says_where_the_report_is(#[case] applied: Applied) {
        let status = project(&applied, noon_and(60));

        let told: Vec<_> = status
            .conditions
            .iter()
            .map(|condition| {
                format!(
                    "{} {} {}: {}",
                    condition.type_, condition.status, condition.reason, condition.message
                )
            })
            .collect();
        if let Some(row) = &applied.world.row {
            assert_eq!(status.phase, Some(Phase::from(row.state())));
        }
        insta::assert_yaml_snapshot!(
            std::thread::current()
                .name()
                .map(|name| name.rsplit("::").next().unwrap().to_owned())
                .unwrap(),
            json!({
                "phase": status.phase,
                "job": status.job,
                "artifact": status.artifact,
                "attempts": status.attempts,
                "finishedAt": status.finished_at,
                "conditions": told,
            })
        );
    }

    #[test]
    fn a_status_that_was_published_is_not_news() {
        let first = project(
            &applied(launched_world().with_row(completed()), Outcome::Unchanged),
            noon_and(60),
        );
        let mut object = object(json!({}));
        object.status = Some(first.clone());
        // as the API server returns it
        let object: PopularityReport =
            serde_json::from_value(serde_json::to_value(&object).unwrap()).unwrap();

        let second = project(
            &applied(world(object.clone()).with_row(completed()), Outcome::Unchanged),
            noon_and(3_600),
        );

        assert_eq!(object.status, Some(second));
    }

    #[test]
    fn a_job_of_another_cluster_is_forgotten_when_the_object_is_bound_anew() {
        let restored = World {
            was_rebound: true,
            ..launched_world().with_row(processing())
        };

        assert_eq!(
            project(&applied(restored, Outcome::Changed), noon_and(60)).job,
            None
        );
    }
}
