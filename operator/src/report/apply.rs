//! Step 4: do what was planned. Client and database required.
//!
//! Every act can be done twice: names are deterministic, rows are guarded, deletions name the uid. A crash
//! between two of them is repaired by the next reconcile, which looks at the world anew.

use domain::{CustomResourceRef, Failure, FailureReason};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use runtime::crash_point;
use serde_json::json;
use store::reports::{self, Transition};
use tokio::time::Instant;

use crds::{PopularityReport, names};

use super::build::{Launch, Plan};
use super::decide::Release;
use super::dereference::World;
use super::events;
use crate::context::Context;
use crate::error_chain::error_chain;
use crate::places::{Answer, Place};

/// Which act failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Setting the finalizers.
    #[error("failed to set the finalizers of the PopularityReport")]
    SetFinalizers(#[source] kube::Error),
    /// Inserting row and message.
    #[error("failed to record the PopularityReport as a report")]
    Adopt(#[source] reports::Error),
    /// Recording the object in the row.
    #[error("failed to record the PopularityReport in its row")]
    Bind(#[source] reports::Error),
    /// Dispatching a report whose message was lost.
    #[error("failed to dispatch the report without its message")]
    Recover(#[source] reports::Error),
    /// Reading the queue for a place.
    #[error("failed to read the queue for a place")]
    ReadQueue(#[source] reports::Error),
    /// Creating the Job.
    #[error("failed to create the Job")]
    CreateJob(#[source] kube::Error),
    /// Deleting the Job.
    #[error("failed to delete the Job")]
    DeleteJob(#[source] kube::Error),
    /// Deleting a Pod.
    #[error("failed to delete a Pod of the Job")]
    DeletePod(#[source] kube::Error),
    /// Ending the row.
    #[error("failed to end the report")]
    Fail(#[source] reports::Error),
    /// Reading the row after a change.
    #[error("failed to read the report after a change")]
    ReadAgain(#[source] reports::Error),
    /// Deleting the object.
    #[error("failed to delete the PopularityReport after its time to live")]
    Expire(#[source] kube::Error),
    /// Recording the deletion in the row.
    #[error("failed to record the deletion of the PopularityReport in its row")]
    RecordDeletion(#[source] reports::Error),
}

/// What came of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing needed doing.
    Unchanged,
    /// The world moved; it is worth another look at once.
    Changed,
    /// All places of the kind that the Job takes are taken.
    Waiting {
        /// The report's number in line, from 1.
        number: usize,
        /// How many places there are.
        places: usize,
        /// The kind of place.
        place: Place,
    },
    /// The cluster forbids the Job for now.
    Forbidden(String),
    /// Job and Pods are on their way out.
    Ending,
    /// The file cannot be deleted now.
    BlobRemains(String),
    /// The object is gone, or will be without us.
    Gone,
}

/// The world after the plan.
#[derive(Clone, Debug)]
pub struct Applied {
    /// As far as the acts have changed it.
    pub world: World,
    /// What came of them.
    pub outcome: Outcome,
}

/// Does what was planned, and keeps the books on who holds a place.
///
/// # Errors
/// [`Error`]
pub async fn apply(context: &Context, mut world: World, plan: Plan) -> Result<Applied, Error> {
    let launching = matches!(plan, Plan::Launch(_));
    let outcome = act(context, &mut world, plan).await?;
    let report = world.report;
    if let Some(place) = world.place() {
        context
            .wakes
            .wake(context.places.hold(report, place, Instant::now()));
    } else if !launching || matches!(outcome, Outcome::Forbidden(_) | Outcome::Changed) {
        context.wakes.wake(context.places.release(report));
    }
    Ok(Applied { world, outcome })
}

async fn act(context: &Context, world: &mut World, plan: Plan) -> Result<Outcome, Error> {
    match plan {
        Plan::Nothing => Ok(Outcome::Unchanged),
        Plan::SetFinalizers(finalizers) => set_finalizers(context, world, &finalizers).await,
        Plan::Adopt(adoption) => {
            let row = reports::adopt(&context.database, &adoption)
                .await
                .map_err(Error::Adopt)?;
            world.row = Some(row);
            Ok(Outcome::Changed)
        }
        Plan::Refuse(failure) => {
            if let Some(failure) = failure {
                reports::fail(&context.database, world.report, &failure, context.now())
                    .await
                    .map_err(Error::Fail)?;
            }
            Ok(Outcome::Unchanged)
        }
        Plan::Recover => {
            tracing::warn!(report.id = %world.report, "the report's message was lost; going on without it");
            reports::dispatch(&context.database, world.report, context.now())
                .await
                .map_err(Error::Recover)?;
            read_again(context, world).await?;
            Ok(Outcome::Changed)
        }
        Plan::Bind(reference) => bind(context, world, reference).await,
        Plan::ClearWay(uid) => {
            delete_job(context, world, &uid, PropagationPolicy::Background).await?;
            Ok(Outcome::Ending)
        }
        Plan::Launch(launch) => self::launch(context, world, *launch).await,
        Plan::Fail { failure, job } => {
            fail(context, world, &failure).await?;
            if let Some(uid) = job {
                delete_job(context, world, &uid, PropagationPolicy::Foreground).await?;
            }
            Ok(Outcome::Changed)
        }
        Plan::StopJob(uid) => {
            delete_job(context, world, &uid, PropagationPolicy::Foreground).await?;
            Ok(Outcome::Ending)
        }
        Plan::Expire => expire(context, world).await,
        Plan::RemoveWorkload { job, pods } => {
            if let Some(uid) = job {
                delete_job(context, world, &uid, PropagationPolicy::Foreground).await?;
            }
            delete_pods(context, world, &pods).await?;
            Ok(Outcome::Ending)
        }
        Plan::Release {
            blob,
            release,
            finalizers,
        } => {
            if let Some(remains) = delete_blob(context, world, blob, release).await {
                return Ok(remains);
            }
            if world.row.is_some() || world.unreadable.is_some() {
                if release.retain {
                    reports::retain_file(&context.database, world.report, context.now())
                        .await
                        .map_err(Error::RecordDeletion)?;
                }
                reports::record_cr_deleted(
                    &context.database,
                    world.report,
                    &world.reference.uid,
                    context.now(),
                )
                .await
                .map_err(Error::RecordDeletion)?;
            }
            set_finalizers(context, world, &finalizers).await?;
            Ok(Outcome::Gone)
        }
    }
}

fn objects(context: &Context, world: &World) -> Api<PopularityReport> {
    Api::namespaced(context.client.clone(), &world.reference.namespace)
}

/// Writes on top of the version that was read, so that a finalizer of somebody else is never lost.
async fn set_finalizers(context: &Context, world: &World, finalizers: &[String]) -> Result<Outcome, Error> {
    let patch = json!({ "metadata": {
        "resourceVersion": world.object.meta().resource_version,
        "finalizers": finalizers,
    }});
    let parameters = PatchParams {
        field_manager: Some(names::FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    match objects(context, world)
        .patch(&world.reference.name, &parameters, &Patch::Merge(&patch))
        .await
    {
        Ok(_) => Ok(Outcome::Changed),
        Err(error) if is_status(&error, 404) => Ok(Outcome::Gone),
        Err(error) => Err(Error::SetFinalizers(error)),
    }
}

async fn bind(context: &Context, world: &mut World, reference: CustomResourceRef) -> Result<Outcome, Error> {
    let earlier = world.row.as_ref().and_then(|row| row.custom_resource.as_ref());
    world.was_rebound = earlier.is_some();
    reports::record_cr(&context.database, world.report, &reference, context.now())
        .await
        .map_err(Error::Bind)?;
    read_again(context, world).await?;
    Ok(Outcome::Changed)
}

async fn launch(context: &Context, world: &mut World, launch: Launch) -> Result<Outcome, Error> {
    /// Who is further behind is only told that it is far.
    const QUEUE_LIMIT: u32 = 1_000;
    let queue = reports::waiting(&context.database, QUEUE_LIMIT)
        .await
        .map_err(Error::ReadQueue)?;
    let Launch { job, give_up_at } = launch;
    let place = Place::of(&job).unwrap_or(Place::Running);
    let answer = context
        .places
        .request(world.report, &place, &queue, Instant::now());
    if let Answer::Waiting { number } = answer {
        let places = context.places.most();
        return Ok(Outcome::Waiting {
            number,
            places,
            place,
        });
    }
    let jobs: Api<Job> = Api::namespaced(context.client.clone(), &world.reference.namespace);
    let parameters = PostParams {
        field_manager: Some(names::FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    // Created, not applied: most of a Job cannot be changed, and whoever was first has made the same one.
    match jobs.create(&parameters, &job).await {
        Ok(created) => {
            crash_point("controller.after-job");
            world.job = Some(created);
            Ok(Outcome::Changed)
        }
        Err(error) if is_status(&error, 409) => Ok(Outcome::Changed),
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 422) => {
            fail(
                context,
                world,
                &Failure::new(FailureReason::JobRejected, &status.message),
            )
            .await?;
            Ok(Outcome::Changed)
        }
        Err(kube::Error::Api(status)) if status.code == 403 => {
            // a quota or a policy may make room again, until the report's own patience ends
            if context.now() < give_up_at {
                return Ok(Outcome::Forbidden(status.message.clone()));
            }
            fail(
                context,
                world,
                &Failure::new(FailureReason::JobRejected, &status.message),
            )
            .await?;
            Ok(Outcome::Changed)
        }
        Err(error) => {
            context.wakes.wake(context.places.release(world.report));
            Err(Error::CreateJob(error))
        }
    }
}

/// Ends the row, unless it has ended by itself meanwhile.
async fn fail(context: &Context, world: &mut World, failure: &Failure) -> Result<(), Error> {
    let transition = reports::fail(&context.database, world.report, failure, context.now())
        .await
        .map_err(Error::Fail)?;
    match transition {
        Transition::Applied(()) => {
            tracing::info!(report.id = %world.report, reason = %failure.reason, "the report failed");
        }
        Transition::Superseded(state) => {
            tracing::info!(report.id = %world.report, %state, "the report had ended already");
        }
        Transition::Unknown => {
            tracing::warn!(report.id = %world.report, "the report's row is gone");
        }
    }
    read_again(context, world).await
}

async fn read_again(context: &Context, world: &mut World) -> Result<(), Error> {
    world.row = reports::get(&context.database, world.report)
        .await
        .map_err(Error::ReadAgain)?;
    Ok(())
}

async fn delete_job(
    context: &Context,
    world: &World,
    uid: &str,
    propagation: PropagationPolicy,
) -> Result<(), Error> {
    let on_its_way = world
        .job
        .as_ref()
        .is_some_and(|job| job.metadata.deletion_timestamp.is_some());
    if on_its_way {
        return Ok(());
    }
    let jobs: Api<Job> = Api::namespaced(context.client.clone(), &world.reference.namespace);
    let parameters = DeleteParams {
        propagation_policy: Some(propagation),
        preconditions: Some(this_one(uid)),
        ..DeleteParams::default()
    };
    match jobs.delete(&names::job(world.report), &parameters).await {
        Ok(_) => Ok(()),
        // gone, or another of the same name: the next look tells
        Err(error) if is_status(&error, 404) || is_status(&error, 409) => Ok(()),
        Err(error) => Err(Error::DeleteJob(error)),
    }
}

async fn delete_pods(context: &Context, world: &World, pods: &[String]) -> Result<(), Error> {
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &world.reference.namespace);
    for pod in pods {
        match api.delete(pod, &DeleteParams::default()).await {
            Ok(_) => {}
            Err(error) if is_status(&error, 404) => {}
            Err(error) => return Err(Error::DeletePod(error)),
        }
    }
    Ok(())
}

async fn expire(context: &Context, world: &World) -> Result<Outcome, Error> {
    let parameters = DeleteParams {
        preconditions: Some(this_one(&world.reference.uid)),
        ..DeleteParams::default()
    };
    match objects(context, world)
        .delete(&world.reference.name, &parameters)
        .await
    {
        Ok(_) => Ok(Outcome::Gone),
        Err(error) if is_status(&error, 404) || is_status(&error, 409) => Ok(Outcome::Gone),
        Err(error) => Err(Error::Expire(error)),
    }
}

/// Deletes the file. The answer is why it is still there, while there is patience left; afterwards it is
/// left to the sweep, and an Event says so.
async fn delete_blob(
    context: &Context,
    world: &World,
    blob: Option<domain::BlobName>,
    release: Release,
) -> Option<Outcome> {
    let blob = blob?;
    let error = context.blobs.delete(blob.as_str()).await.err()?;
    tracing::warn!(
        report.id = %world.report,
        blob = %blob,
        error = error_chain(&error),
        "the file of a deleted report cannot be deleted now"
    );
    if context.now() < release.give_up_at {
        return Some(Outcome::BlobRemains(error.to_string()));
    }
    events::publish(
        context,
        world,
        events::blob_left_behind(&blob, context.blobs.container()),
    )
    .await;
    None
}

fn this_one(uid: &str) -> Preconditions {
    Preconditions {
        uid: Some(uid.to_owned()),
        resource_version: None,
    }
}

fn is_status(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}
