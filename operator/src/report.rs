//! One report, reconciled in five steps:
//!
//! 1. [`dereference`](mod@dereference): find its row, its Job and its Pods. Client and database required.
//! 2. [`decide`](mod@decide): judge what was found. Pure.
//! 3. [`build`](mod@build): write down what is to be done, down to the last field of the Job. Pure.
//! 4. [`apply`](mod@apply): do it. Client and database required.
//! 5. [`publish_status`](mod@publish_status): say where the report is, when there is news. Client required.
//!
//! The row is the truth, and the status is a projection of it. A crash between any two acts is repaired by
//! the next reconcile, which looks at the world anew.

pub mod apply;
pub mod build;
pub mod decide;
pub mod dereference;
pub mod events;
pub mod failure;
pub mod publish_status;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use domain::OutboxId;
use kube::runtime::controller::Action;
use tokio::time::timeout;
use uuid::Uuid;

use crds::PopularityReport;

use crate::context::Context;
use apply::{Applied, Outcome, apply};
use build::build;
use decide::{Decision, decide};
use dereference::{World, dereference};
use publish_status::publish_status;

/// The longest that one reconcile may take. The API server and the database each have their own, shorter
/// limits; this one is for an answer that never comes.
const RECONCILE_TIMEOUT: Duration = Duration::from_secs(30);
/// How soon a report that has just moved is looked at again, should the watch not be quicker.
const AT_ONCE: Duration = Duration::from_millis(50);
/// How soon to look again for what is on its way out.
const ENDING: Duration = Duration::from_secs(1);
/// How soon to look again at a Pod that has not started: nothing tells that its state has changed.
const STARTING: Duration = Duration::from_secs(5);
/// How soon to look again at what notifications and watches should tell: they can be lost.
const UNFINISHED: Duration = Duration::from_secs(15);
/// How soon to ask again for what the cluster forbids or storage refuses.
const REFUSED: Duration = Duration::from_secs(5);
/// How far ahead the end of a long rest is planned.
const LONGEST_REST: Duration = Duration::from_secs(3_600);

/// Which step failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Step 1.
    #[error("failed to find what belongs to the report")]
    Dereference(#[from] dereference::Error),
    /// Step 4.
    #[error("failed to do what the report needs")]
    Apply(#[from] apply::Error),
    /// Step 5.
    #[error("failed to publish where the report is")]
    PublishStatus(#[from] publish_status::Error),
    /// Something never answered.
    #[error("the reconcile took longer than {} s", RECONCILE_TIMEOUT.as_secs())]
    TimedOut,
}

impl Error {
    /// The one word for it, in metrics.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Dereference(_) => "DereferenceFailed",
            Self::Apply(_) => "ApplyFailed",
            Self::PublishStatus(_) => "PublishStatusFailed",
            Self::TimedOut => "TimedOut",
        }
    }

    /// Whether somebody else wrote at the same time, so that another look is all that is needed.
    pub fn is_conflict(&self) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            if let Some(kube::Error::Api(status)) = error.downcast_ref() {
                return status.code == 409;
            }
            cause = error.source();
        }
        false
    }
}

/// Brings one report a step further, and tells when to look at it again.
///
/// # Errors
/// [`Error`]; nothing is left half-done that the next reconcile does not see.
pub async fn reconcile(object: Arc<PopularityReport>, context: Arc<Context>) -> Result<Action, Error> {
    match timeout(RECONCILE_TIMEOUT, steps(&context, &object)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::TimedOut),
    }
}

async fn steps(context: &Context, object: &PopularityReport) -> Result<Action, Error> {
    let Some(world) = dereference(context, object).await? else {
        return Ok(Action::await_change());
    };
    let now = context.now();
    let decision = decide(&world, now);
    tracing::debug!(report.id = %world.report, ?decision, "decided");
    let again = patience(&decision, &world);
    let outbox_id = OutboxId::new(Uuid::now_v7());
    let plan = build(decision, &world, &context.exporter, outbox_id, now);
    let applied = apply(context, world, plan).await?;
    publish_status(context, &applied).await?;
    Ok(next(&applied, again))
}

/// When to look again at a report for which nothing was to be done.
fn patience(decision: &Decision, world: &World) -> Action {
    match decision {
        Decision::Ignore | Decision::Refuse(_) => Action::await_change(),
        Decision::Rest(left) => Action::requeue(left.saturating_add(AT_ONCE).min(LONGEST_REST)),
        Decision::AwaitExport => {
            let started = world
                .row
                .as_ref()
                .is_some_and(|row| row.state() == domain::State::Processing);
            let has_pod = !started && world.suspended_job().is_none();
            Action::requeue(if has_pod { STARTING } else { UNFINISHED })
        }
        _ => Action::requeue(UNFINISHED),
    }
}

fn next(applied: &Applied, patience: Action) -> Action {
    match &applied.outcome {
        Outcome::Unchanged => patience,
        Outcome::Changed => Action::requeue(AT_ONCE),
        Outcome::Waiting { .. } => Action::requeue(UNFINISHED),
        Outcome::Ending => Action::requeue(ENDING),
        Outcome::Forbidden(_) | Outcome::BlobRemains(_) => Action::requeue(REFUSED),
        Outcome::Gone => Action::await_change(),
    }
}
