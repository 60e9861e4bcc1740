//! Step 1: find everything that belongs to the object: its row, its Job, and the Job's Pods when they
//! matter. Client and database required.

use domain::{CustomResourceRef, ParameterErrors, Report, ReportId};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams};

use crds::{PopularityReport, names};
use store::reports;

use super::failure::{self, JobState};
use crate::context::Context;
use crate::places::Place;

/// Why the world could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object.
    #[error("failed to read the PopularityReport")]
    ReadObject(#[source] kube::Error),
    /// The row.
    #[error("failed to read the report's row")]
    ReadRow(#[source] reports::Error),
    /// The Job.
    #[error("failed to read the report's Job")]
    ReadJob(#[source] kube::Error),
    /// The Pods.
    #[error("failed to list the Pods of the report's Job")]
    ListPods(#[source] kube::Error),
    /// The object has no uid or no namespace: it does not come from an API server.
    #[error("the PopularityReport has no {0}")]
    Incomplete(&'static str),
}

/// What was found.
#[derive(Clone, Debug)]
pub struct World {
    /// The custom resource.
    pub object: PopularityReport,
    /// Which it is.
    pub reference: CustomResourceRef,
    /// The report that it stands for; its own uid when there is no row yet.
    pub report: ReportId,
    /// The row.
    pub row: Option<Report>,
    /// What is wrong with the row's parameters, when they are why there is none.
    pub unreadable: Option<ParameterErrors>,
    /// The Job of the report's name, whoever owns it.
    pub job: Option<Job>,
    /// The Pods of the report, while its Job is of interest.
    pub pods: Vec<Pod>,
    /// Whether the row was bound just now after it had known another object: what the status says of a Job
    /// is then about that of another cluster.
    pub was_rebound: bool,
}

impl World {
    /// Whether the row knows the object as its own.
    pub fn is_bound(&self) -> bool {
        self.row
            .as_ref()
            .and_then(|row| row.custom_resource.as_ref())
            .is_some_and(|known| *known == self.reference)
    }

    /// Whether there is a Job and this very object owns it.
    pub fn owns_job(&self) -> bool {
        self.job.as_ref().is_some_and(|job| {
            job.owner_references()
                .iter()
                .any(|owner| owner.uid == self.reference.uid)
        })
    }

    /// Whether there is a Job of ours that has not ended.
    pub fn has_live_job(&self) -> bool {
        self.place().is_some()
    }

    /// The place that our Job takes, while it has not ended.
    pub fn place(&self) -> Option<Place> {
        self.job.as_ref().filter(|_| self.owns_job()).and_then(Place::of)
    }

    /// Our Job, if it has not ended and is suspended. Its last Pod may still be ending.
    pub fn suspended_job(&self) -> Option<&Job> {
        let job = self.job.as_ref().filter(|_| self.owns_job())?;
        let waits = matches!(failure::state(job), JobState::Live | JobState::Suspended);
        (waits && failure::is_suspended(job)).then_some(job)
    }
}

/// Finds what belongs to the object; none when it is gone. The object itself is read again: the cache may be
/// older than what we wrote last, and an old status would be taken for news.
///
/// The Job is read before the row: an exporter writes the row before its Job ends, so a Job that has ended
/// beside a row that has not is what it looks like.
///
/// # Errors
/// [`Error`]
pub async fn dereference(context: &Context, cached: &PopularityReport) -> Result<Option<World>, Error> {
    let reference = CustomResourceRef {
        namespace: cached.namespace().ok_or(Error::Incomplete("namespace"))?,
        name: cached.name_any(),
        uid: cached.uid().ok_or(Error::Incomplete("uid"))?,
    };
    let objects: Api<PopularityReport> = Api::namespaced(context.client.clone(), &reference.namespace);
    let current = objects
        .get_opt(&reference.name)
        .await
        .map_err(Error::ReadObject)?;
    let Some(object) = current.filter(|object| object.uid().as_deref() == Some(&reference.uid)) else {
        return Ok(None);
    };
    let own = object.own_report().ok_or(Error::Incomplete("UUID as its uid"))?;
    let (report, mut row) = find_row(context, &object, &reference, own).await?;

    let jobs: Api<Job> = Api::namespaced(context.client.clone(), &reference.namespace);
    let job = jobs.get_opt(&names::job(report)).await.map_err(Error::ReadJob)?;

    let unfinished = |row: &Row| matches!(row, Row::Found(found) if !found.state().is_terminal());
    let ended = job
        .as_ref()
        .is_some_and(|job| matches!(failure::state(job), JobState::Failed | JobState::Complete));
    if ended && unfinished(&row) {
        row = read(context, report).await?;
    }

    let deleting = object.metadata.deletion_timestamp.is_some();
    let pods = if deleting || (job.is_some() && unfinished(&row)) {
        list_pods(context, &reference.namespace, report).await?
    } else {
        Vec::new()
    };

    let (row, unreadable) = match row {
        Row::Found(found) => (Some(*found), None),
        Row::Unreadable(errors) => (None, Some(errors)),
        Row::None => (None, None),
    };
    Ok(Some(World {
        object,
        reference,
        report,
        row,
        unreadable,
        job,
        pods,
        was_rebound: false,
    }))
}

/// A look into the table.
enum Row {
    Found(Box<Report>),
    Unreadable(ParameterErrors),
    None,
}

/// The row that the object stands for: the one that its label names, if that row takes it for its object;
/// else the one that has its uid.
async fn find_row(
    context: &Context,
    object: &PopularityReport,
    reference: &CustomResourceRef,
    own: ReportId,
) -> Result<(ReportId, Row), Error> {
    if let Some(labelled) = object.labelled_report() {
        match read(context, labelled).await? {
            Row::Found(found) if stands_for(&found, reference) => return Ok((labelled, Row::Found(found))),
            Row::Unreadable(errors) if reference.name == names::custom_resource(labelled) => {
                return Ok((labelled, Row::Unreadable(errors)));
            }
            Row::Found(_) | Row::Unreadable(_) | Row::None => {}
        }
    }
    Ok((own, read(context, own).await?))
}

/// Whether an object of this name may stand for the row: a copy of a manifest under another name, or made
/// after the row's own object was deleted, asks for a report of its own.
fn stands_for(row: &Report, reference: &CustomResourceRef) -> bool {
    if row.custom_resource_deleted_at.is_some() {
        return false;
    }
    match &row.custom_resource {
        Some(known) => known.namespace == reference.namespace && known.name == reference.name,
        None => reference.name == names::custom_resource(row.id),
    }
}

async fn read(context: &Context, id: ReportId) -> Result<Row, Error> {
    match reports::get(&context.database, id).await {
        Ok(Some(report)) => Ok(Row::Found(Box::new(report))),
        Ok(None) => Ok(Row::None),
        Err(reports::Error::InvalidParameters { source, .. }) => Ok(Row::Unreadable(source)),
        Err(error) => Err(Error::ReadRow(error)),
    }
}

async fn list_pods(context: &Context, namespace: &str, report: ReportId) -> Result<Vec<Pod>, Error> {
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    let of_report = ListParams::default().labels(&format!("{}={report}", names::REPORT_ID_LABEL));
    Ok(pods.list(&of_report).await.map_err(Error::ListPods)?.items)
}
