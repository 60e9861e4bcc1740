//! One attempt, from the row to the row.

use std::fmt;

use blob::{BlobConfig, BlobStore, Commit, Credential, WriterOptions};
use domain::{Artifact, BlobName, Report, SCHEMA, State};
use futures::TryStreamExt as _;
use jiff::Timestamp;
use runtime::crash_point;
use sqlx::PgPool;
use store::catalogue::Snapshot;
use store::reports::{self, Transition};
use tokio_util::sync::CancellationToken;

use crate::adoption::{Standing, standing};
use crate::config::Config;
use crate::error::Error;
use crate::file::FileWriter;
use crate::file_metadata::FileMetadata;
use crate::packing::content_type;
use crate::patience::while_unavailable;
use crate::progress::Progress;

/// How a run that did not fail ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The report is completed by this run.
    Completed(Artifact),
    /// The report had ended otherwise: by another attempt, a cancellation or a deadline.
    Superseded(State),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Completed(artifact) => write!(f, "completed, {} rows", artifact.rows),
            Self::Superseded(state) => write!(f, "superseded, the report was {state}"),
        }
    }
}

/// The file's name and type.
pub(crate) struct Target {
    pub(crate) name: BlobName,
    pub(crate) content_type: &'static str,
}

impl Target {
    fn of(report: &Report) -> Self {
        let compression = report.parameters.compression;
        Self {
            name: BlobName::of(report.id, compression),
            content_type: content_type(compression),
        }
    }
}

/// Makes one attempt at the report's file. When `shutdown` is cancelled while rows are written the attempt
/// ends and leaves nothing visible; from the commit on it goes on to its end, which is near.
///
/// # Errors
/// [`Error`], which knows the exit code and what to tell.
pub async fn run(config: &Config, shutdown: &CancellationToken) -> Result<Outcome, Error> {
    let reports = store::pool::connect(
        &config.database.reports_database_url,
        config.database.reports_database_max_connections.get(),
        "exporter",
    )
    .map_err(|source| Error::DatabaseUrl {
        which: "REPORTS_DATABASE_URL",
        source,
    })?;
    let catalogue =
        store::pool::connect(&config.catalogue.catalog_database_url, 1, "exporter").map_err(|source| {
            Error::DatabaseUrl {
                which: "CATALOG_DATABASE_URL",
                source,
            }
        })?;
    let store = blob_store(config)?;

    let begun = until(shutdown, async {
        Ok(
            while_unavailable(async || reports::begin(&reports, config.report_id, Timestamp::now()).await)
                .await?,
        )
    });
    let report = match begun.await? {
        Transition::Applied(report) => report,
        Transition::Superseded(state) => return Ok(Outcome::Superseded(state)),
        Transition::Unknown => return Err(Error::UnknownReport(config.report_id)),
    };
    let target = Target::of(&report);
    tracing::info!(
        report.id = %report.id,
        attempt = report.attempts.get(),
        blob = %target.name,
        parameters = ?report.parameters,
        "beginning"
    );

    let uploaded = until(shutdown, async {
        store.ensure_container().await?;
        match earlier_file(&store, &report, &target).await? {
            Some(artifact) => Ok(Found::Artifact(artifact)),
            None => upload(&store, &catalogue, &report, &target)
                .await
                .map(Found::Upload),
        }
    });
    let artifact = match uploaded.await? {
        Found::Artifact(artifact) => artifact,
        Found::Upload(upload) => commit(&store, &report, &target, upload).await?,
    };
    complete(&reports, &store, &report, artifact).await
}

/// What an attempt has before it commits.
enum Found {
    Artifact(Artifact),
    Upload(Upload),
}

/// The work, unless a signal comes first.
async fn until<T>(
    shutdown: &CancellationToken,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match shutdown.run_until_cancelled(work).await {
        Some(done) => done,
        None => Err(Error::Stopped),
    }
}

fn blob_store(config: &Config) -> Result<BlobStore, Error> {
    let login = &config.blob.login;
    let credential = Credential::choose(
        login.azure_storage_connection_string.clone(),
        login.blob_endpoint.clone(),
    )?;
    Ok(BlobStore::new(BlobConfig::new(
        credential,
        &config.blob.blob_container,
    ))?)
}

/// The whole file of an earlier attempt. A damaged one is removed, to be written anew: the row does not say
/// `Completed`, so nobody was told of it.
async fn earlier_file(
    store: &BlobStore,
    report: &Report,
    target: &Target,
) -> Result<Option<Artifact>, Error> {
    match standing(store, report, target).await? {
        Standing::Nothing => Ok(None),
        Standing::File(artifact) => Ok(Some(artifact)),
        Standing::Damaged => {
            store.delete(target.name.as_str()).await?;
            Ok(None)
        }
    }
}

/// Every byte of the file, staged and not visible, with its facts.
struct Upload {
    file: crate::file::UploadedFile,
    data_as_of: Timestamp,
}

/// Streams one snapshot of the catalogue into blocks.
async fn upload(
    store: &BlobStore,
    catalogue: &PgPool,
    report: &Report,
    target: &Target,
) -> Result<Upload, Error> {
    let options = WriterOptions {
        content_disposition: Some(format!("attachment; filename=\"{}\"", target.name)),
        ..WriterOptions::new(report.attempts.get(), target.content_type)
    };
    let mut file = FileWriter::new(&report.parameters, store.writer(target.name.as_str(), options))?;
    let mut progress = Progress::begin();
    let mut snapshot = Snapshot::open(catalogue).await?;
    let data_as_of = snapshot.data_as_of();
    let mut albums = std::pin::pin!(snapshot.albums(&report.parameters));
    while let Some(album) = albums.try_next().await? {
        file.row(&album).await?;
        progress.row(file.rows(), file.bytes());
    }
    let file = file.finish().await?;
    tracing::info!(
        rows = file.rows,
        bytes = file.bytes,
        sha256 = %file.sha256,
        seconds = progress.seconds(),
        "uploaded; nothing is visible yet"
    );
    crash_point(&format!("exporter.uploading.attempt-{}", report.attempts));
    Ok(Upload { file, data_as_of })
}

/// Makes the file visible, or takes over the one of an attempt that was faster.
async fn commit(
    store: &BlobStore,
    report: &Report,
    target: &Target,
    upload: Upload,
) -> Result<Artifact, Error> {
    let Upload { file, data_as_of } = upload;
    let (rows, bytes, sha256) = (file.rows, file.bytes, file.sha256);
    let metadata = FileMetadata {
        report_id: report.id,
        attempt: report.attempts,
        schema: SCHEMA.to_owned(),
        parameters: report.parameters.clone(),
        data_as_of,
        rows,
        sha256,
    };
    let facts = match file.commit(metadata.to_blob()?).await? {
        Commit::Created(facts) => facts,
        Commit::Exists(facts) => {
            tracing::info!(blob = %target.name, etag = facts.etag, "another attempt committed first");
            return match standing(store, report, target).await? {
                Standing::File(artifact) => Ok(artifact),
                // gone or damaged: the next attempt deals with it
                Standing::Nothing | Standing::Damaged => Err(Error::Disagreement {
                    blob: facts.name,
                    written: bytes,
                    found: facts.bytes,
                }),
            };
        }
    };
    crash_point(&format!("exporter.after-commit.attempt-{}", report.attempts));
    if facts.bytes != bytes || facts.content_type.as_deref() != Some(target.content_type) {
        return Err(Error::Disagreement {
            blob: facts.name,
            written: bytes,
            found: facts.bytes,
        });
    }
    Ok(Artifact {
        container: store.container().to_owned(),
        blob: target.name.clone(),
        bytes,
        rows,
        sha256,
        content_type: target.content_type.to_owned(),
        schema: SCHEMA.to_owned(),
        data_as_of,
    })
}

/// Tells the row, last of all. A report that has failed meanwhile keeps no file.
async fn complete(
    reports: &PgPool,
    store: &BlobStore,
    report: &Report,
    artifact: Artifact,
) -> Result<Outcome, Error> {
    let told =
        while_unavailable(async || reports::complete(reports, report.id, &artifact, Timestamp::now()).await);
    match told.await? {
        Transition::Applied(_) => Ok(Outcome::Completed(artifact)),
        Transition::Superseded(State::Failed) => {
            tracing::info!(blob = %artifact.blob, "the report has failed meanwhile; removing its file");
            store.delete(artifact.blob.as_str()).await?;
            Ok(Outcome::Superseded(State::Failed))
        }
        Transition::Superseded(state) => Ok(Outcome::Superseded(state)),
        Transition::Unknown => Err(Error::UnknownReport(report.id)),
    }
}
