//! The sweep: what nobody would come back to otherwise. The leader does it.
//!
//! * Rows without their PopularityReport (the REST service died before it made one, Kubernetes was away, the
//!   cluster was made anew) get it.
//! * Files that nobody may want any more are deleted: those of failed, deleted and expired reports. Also
//!   again: an attempt that was on its way when its report was deleted can bring a deleted file back.
//! * Outbox messages that were sent long ago are pruned.

use std::time::Duration;

use blob::BlobFacts;
use domain::ReportId;
use futures::TryStreamExt;
use futures::stream::TryChunksError;
use jiff::SignedDuration;
use kube::api::{Api, PostParams};
use kube::runtime::reflector::{ObjectRef, Store};
use store::outbox;
use store::reports::{self, Unsettled};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crds::{PopularityReport, names};

use crate::context::Context;
use crate::error_chain::error_chain;

/// How often rows without their object are looked for: work goes on within ten seconds of Kubernetes' return.
const OBJECTS_EVERY: Duration = Duration::from_secs(5);
/// How many rows are read at once.
const PAGE: u32 = 500;
/// How often files that nobody wants are looked for: it lists the container.
const FILES_EVERY: Duration = Duration::from_secs(300);
/// How many files are judged at once.
const FILES_PAGE: usize = 500;
/// How often processed messages are pruned.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// How long a processed message is kept, for people who ask what was sent.
const KEEP_PROCESSED: SignedDuration = SignedDuration::from_hours(24 * 7);
/// How many are pruned in one statement.
const PRUNE_BATCH: u32 = 1_000;
/// The longest that one request to the API server may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Why one kind of sweeping stopped short; the next time it begins anew.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Rows without their object.
    #[error("failed to read the reports to sweep")]
    Read(#[source] reports::Error),
    /// The object of one.
    #[error("failed to create the PopularityReport of report {0}")]
    Create(ReportId, #[source] kube::Error),
    /// The API server hangs.
    #[error("the API server did not answer within {} s", REQUEST_TIMEOUT.as_secs())]
    TimedOut,
    /// The container.
    #[error("failed to look for files that nobody wants")]
    ListFiles(#[source] blob::Error),
    /// One of them.
    #[error("failed to delete a file that nobody wants")]
    DeleteFile(#[source] blob::Error),
    /// The outbox.
    #[error("failed to prune the outbox")]
    Prune(#[source] outbox::Error),
}

/// Sweeps for as long as it is polled.
pub async fn run(context: &Context, namespace: &str, objects: &Store<PopularityReport>) {
    let every = |period| {
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    };
    if objects.wait_until_ready().await.is_err() {
        // the controller was dropped, and we are about to be
        return std::future::pending().await;
    }
    let mut objects_due = every(OBJECTS_EVERY);
    let mut files_due = every(FILES_EVERY);
    let mut prune_due = every(PRUNE_EVERY);
    loop {
        let (what, outcome) = tokio::select! {
            _ = objects_due.tick() => ("objects", make_missing(context, namespace, objects).await),
            _ = files_due.tick() => ("files", delete_unwanted_files(context).await),
            _ = prune_due.tick() => ("outbox", prune(context).await),
        };
        match outcome {
            Ok(0) => {}
            Ok(count) => tracing::info!(what, count, "swept"),
            Err(error) => tracing::warn!(
                what,
                error = error_chain(&error),
                "sweeping stopped short and begins anew later"
            ),
        }
    }
}

/// Creates the object of every row that lacks it; the answer is how many.
async fn make_missing(
    context: &Context,
    namespace: &str,
    objects: &Store<PopularityReport>,
) -> Result<u64, Error> {
    let mut made = 0;
    let mut after = None;
    loop {
        let page = reports::to_sweep(&context.database, after, PAGE, context.now())
            .await
            .map_err(Error::Read)?;
        for row in page.iter().filter(|row| row.cr_namespace == namespace) {
            let object = ObjectRef::<PopularityReport>::new(&row.cr_name).within(namespace);
            if objects.get(&object).is_none() && make(context, row).await? {
                made += 1;
            }
        }
        after = page.last().map(|row| row.id);
        if page.len() < PAGE as usize {
            return Ok(made);
        }
    }
}

/// Creates one object, and says whether it was us: who is second gets `AlreadyExists`, which is success.
pub async fn make(context: &Context, unsettled: &Unsettled) -> Result<bool, Error> {
    let row = match reports::get(&context.database, unsettled.id).await {
        Ok(Some(row)) if row.custom_resource_deleted_at.is_none() => row,
        Ok(_) => return Ok(false),
        Err(error @ reports::Error::InvalidParameters { .. }) => {
            return end_unreadable(context, unsettled.id, error).await;
        }
        Err(error) => return Err(Error::Read(error)),
    };
    let api: Api<PopularityReport> = Api::namespaced(context.client.clone(), &unsettled.cr_namespace);
    let parameters = PostParams {
        field_manager: Some(names::FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    let mut object = PopularityReport::for_row(&row, &unsettled.cr_namespace);
    object.metadata.name = Some(unsettled.cr_name.clone());
    match timeout(REQUEST_TIMEOUT, api.create(&parameters, &object)).await {
        Err(_) => Err(Error::TimedOut),
        Ok(Ok(_)) => {
            tracing::info!(report.id = %row.id, name = unsettled.cr_name, "made the missing PopularityReport");
            Ok(true)
        }
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Ok(false),
        Ok(Err(error)) => Err(Error::Create(unsettled.id, error)),
    }
}

/// A row whose parameters this version cannot read has no object that could ask for the same.
async fn end_unreadable(context: &Context, id: ReportId, error: reports::Error) -> Result<bool, Error> {
    let failure = domain::Failure::new(domain::FailureReason::InvalidParameters, &error.to_string());
    reports::fail(&context.database, id, &failure, context.now())
        .await
        .map_err(Error::Read)?;
    Ok(false)
}

/// Deletes files that nobody may want; the answer is how many. Files that are of no report here are left
/// alone: the container may have other users.
async fn delete_unwanted_files(context: &Context) -> Result<u64, Error> {
    let mut deleted = 0;
    let mut pages = std::pin::pin!(context.blobs.list(None).try_chunks(FILES_PAGE));
    loop {
        let page = match pages.try_next().await {
            Ok(Some(page)) => page,
            Ok(None) => return Ok(deleted),
            // no exporter has made the container yet
            Err(TryChunksError(_, error)) if is_missing(&error) => return Ok(deleted),
            Err(TryChunksError(_, error)) => return Err(Error::ListFiles(error)),
        };
        deleted += delete_unwanted(context, &page).await?;
    }
}

fn is_missing(error: &blob::Error) -> bool {
    error.failure().and_then(blob::ServiceFailure::status) == Some(404)
}

async fn delete_unwanted(context: &Context, page: &[BlobFacts]) -> Result<u64, Error> {
    let mut deleted = 0;
    let ids: Vec<ReportId> = page.iter().filter_map(report_of).collect();
    let unwanted = reports::with_unwanted_file(&context.database, &ids, context.now())
        .await
        .map_err(Error::Read)?;
    for file in page {
        let Some(report) = report_of(file).filter(|report| unwanted.contains(report)) else {
            continue;
        };
        if context
            .blobs
            .delete(&file.name)
            .await
            .map_err(Error::DeleteFile)?
        {
            tracing::info!(report.id = %report, blob = file.name, "deleted a file that nobody wants");
            deleted += 1;
        }
    }
    Ok(deleted)
}

/// The report that the file is named after.
fn report_of(file: &BlobFacts) -> Option<ReportId> {
    let (stem, extension) = file.name.split_once('.')?;
    matches!(extension, "csv" | "csv.gz").then(|| stem.parse().ok())?
}

async fn prune(context: &Context) -> Result<u64, Error> {
    let older_than = context
        .now()
        .checked_sub(KEEP_PROCESSED)
        .unwrap_or(jiff::Timestamp::MIN);
    let mut pruned = 0;
    loop {
        let batch = outbox::prune(&context.database, older_than, PRUNE_BATCH)
            .await
            .map_err(Error::Prune)?;
        pruned += batch;
        if batch < u64::from(PRUNE_BATCH) {
            return Ok(pruned);
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use store::testing::database;

    use super::*;
    use crate::testing::*;

    #[rstest]
    #[case::plain("5f0c2a4e-1111-4222-8333-444455556666.csv", Some(report_id()))]
    #[case::compressed("5f0c2a4e-1111-4222-8333-444455556666.csv.gz", Some(report_id()))]
    #[case::not_ours("5f0c2a4e-1111-4222-8333-444455556666.txt", None)]
    #[case::no_id("summary.csv", None)]
    #[case::no_extension("5f0c2a4e-1111-4222-8333-444455556666", None)]
    fn a_file_belongs_to_the_report_that_it_is_named_after(
        #[case] name: &str,
        #[case] report: Option<ReportId>,
    ) {
        let file = BlobFacts {
            name: name.to_owned(),
            bytes: 0,
            etag: String::new(),
            content_type: None,
            content_encoding: None,
            metadata: blob::Metadata::default(),
        };

        assert_eq!(report_of(&file), report);
    }

    fn unsettled() -> Unsettled {
        Unsettled {
            id: report_id(),
            cr_namespace: NAMESPACE.to_owned(),
            cr_name: NAME.to_owned(),
            cr_uid: Some("of-another-cluster".to_owned()),
        }
    }

    #[tokio::test]
    async fn a_missing_object_is_made_anew_under_its_old_name() {
        let database = database().await;
        adopt(&database.operator_pool).await;
        let (client, seen) = api_server([create_object()]);
        let context = context(
            client,
            database.operator_pool.clone(),
            blobs_that_answer(404, "ContainerNotFound").await,
        );

        let made = make(&context, &unsettled()).await.unwrap();

        assert!(made);
        drop(context);
        let object = &seen.bodies().await[0];
        assert_eq!(object["metadata"]["name"], NAME);
        assert_eq!(object["metadata"]["labels"][names::REPORT_ID_LABEL], UID);
        assert_eq!(object["metadata"]["finalizers"][0], names::FINALIZER);
    }

    #[tokio::test]
    async fn an_object_that_somebody_else_made_meanwhile_is_success() {
        let database = database().await;
        adopt(&database.operator_pool).await;
        let (client, _seen) = api_server([create_object().refused(409, "already exists")]);
        let context = context(
            client,
            database.operator_pool.clone(),
            blobs_that_answer(404, "ContainerNotFound").await,
        );

        assert!(!make(&context, &unsettled()).await.unwrap());
    }

    #[tokio::test]
    async fn a_container_that_nobody_has_made_yet_holds_no_unwanted_files() {
        let database = database().await;
        let (client, _seen) = api_server([]);
        let context = context(
            client,
            database.operator_pool.clone(),
            blobs_that_answer(404, "ContainerNotFound").await,
        );

        assert_eq!(delete_unwanted_files(&context).await.unwrap(), 0);
    }
}
