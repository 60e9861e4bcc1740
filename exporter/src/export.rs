//! One attempt, from the row to the row.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use blob::{
    BlobConfig, BlobFacts, BlobStore, Commit, Credential, RetryProfile, TokenCredential, WriterOptions,
};
use domain::{Artifact, BlobName, Report, SCHEMA, State};
use futures::TryStreamExt as _;
use identity::{Identity, POSTGRES_SCOPE};
use jiff::Timestamp;
use runtime::crash_point;
use sqlx::PgPool;
use store::catalogue::Snapshot;
use store::pool::Login;
use store::reports::{self, Transition};
use tokio_util::sync::CancellationToken;

use crate::adoption::{Standing, standing};
use crate::config::Config;
use crate::error::Error;
use crate::file::{FileWriter, UploadedFile};
use crate::file_metadata::FileMetadata;
use crate::packing::content_type;
use crate::patience::with_patience;
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

/// After a signal the end of an attempt (commit and row) may still take so long: less than the 5 seconds that
/// the operator leaves an exporter's Pod.
const GRACE: Duration = Duration::from_secs(3);

/// Makes one attempt at the report's file. When `shutdown` is cancelled while rows are written the attempt
/// ends and leaves nothing visible; from the commit on it is near its end and goes on for a while.
///
/// # Errors
/// [`Error`], which knows the exit code and what to tell.
#[tracing::instrument(name = "export", skip_all, fields(report.id = %config.report_id))]
pub async fn run(config: &Config, shutdown: &CancellationToken) -> Result<Outcome, Error> {
    let identity = (config.database.by_identity() || config.blob.login.by_identity())
        .then(|| Identity::new(&config.identity.settings(config.exporter_patience)))
        .transpose()?;
    let login: Login = config.database.passwords(identity.as_ref()).into();
    let reports = store::pool::connect(
        &config.database.reports_database_url,
        &login,
        config.database.reports_database_max_connections.get(),
        "exporter",
    )
    .map_err(|source| Error::DatabaseUrl {
        which: "REPORTS_DATABASE_URL",
        source,
    })?;
    let catalogue = store::catalogue::connect(&config.catalogue.catalog_database_url, &login, "exporter")
        .map_err(|source| Error::DatabaseUrl {
            which: "CATALOG_DATABASE_URL",
            source,
        })?;
    let store = blob_store(config, identity.as_ref())?;
    if let Some(identity) = identity.filter(|_| config.database.by_identity()) {
        let token = async {
            identity.token(POSTGRES_SCOPE).await?;
            login.ready().await;
            Ok::<_, Error>(())
        };
        shutdown
            .run_until_cancelled(token)
            .await
            .ok_or(Error::Stopped)??;
    }

    let begun = with_patience(config.exporter_patience, async || {
        reports::begin(&reports, config.report_id, Timestamp::now()).await
    });
    let report = match shutdown
        .run_until_cancelled(begun)
        .await
        .ok_or(Error::Stopped)??
    {
        Transition::Applied(report) => *report,
        Transition::Superseded(state) => return Ok(Outcome::Superseded(state)),
        Transition::Unknown => return Err(Error::UnknownReport(config.report_id)),
    };
    let target = Target::of(&report);
    tracing::info!(
        attempt = report.attempts.get(),
        blob = %target.name,
        parameters = ?report.parameters,
        traceparent = report.traceparent,
        "beginning"
    );
    let attempt = Attempt {
        patience: config.exporter_patience,
        reports,
        catalogue,
        store,
        report,
        target,
    };

    let found = shutdown
        .run_until_cancelled(attempt.find_or_upload())
        .await
        .ok_or(Error::Stopped)??;
    let out_of_grace = async {
        shutdown.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        ended = attempt.end(found) => ended,
        () = out_of_grace => Err(Error::Stopped),
    }
}

fn blob_store(config: &Config, identity: Option<&Identity>) -> Result<BlobStore, Error> {
    let login = &config.blob.login;
    let credential = Credential::choose(
        login.azure_storage_connection_string.clone(),
        login.blob_endpoint.clone(),
        identity
            .cloned()
            .map(|identity| Arc::new(identity) as Arc<dyn TokenCredential>),
    )?;
    let storage = BlobConfig {
        retry: RetryProfile::Persistent(config.exporter_patience),
        ..BlobConfig::new(credential, &config.blob.blob_container)
    };
    Ok(BlobStore::new(storage)?)
}

/// One begun attempt and what it works with.
struct Attempt {
    patience: Duration,
    reports: PgPool,
    catalogue: PgPool,
    store: BlobStore,
    report: Report,
    target: Target,
}

/// What an attempt has before its end.
enum Found {
    /// The whole, visible file of an earlier attempt.
    Earlier(Artifact),
    /// Every byte of a new file, staged and not visible, and the moment of its data.
    Uploaded(UploadedFile, Timestamp),
}

impl Attempt {
    async fn find_or_upload(&self) -> Result<Found, Error> {
        self.store.ensure_container().await?;
        match self.standing().await? {
            Standing::File(artifact) => Ok(Found::Earlier(artifact)),
            Standing::Nothing => self.upload().await,
            Standing::Damaged => {
                // the row does not say Completed, so nobody was told of it
                self.store.delete(self.target.name.as_str()).await?;
                self.upload().await
            }
        }
    }

    async fn standing(&self) -> Result<Standing, Error> {
        standing(&self.store, &self.report, &self.target).await
    }

    /// Streams one snapshot of the catalogue into blocks.
    async fn upload(&self) -> Result<Found, Error> {
        let parameters = &self.report.parameters;
        let options = WriterOptions {
            content_disposition: Some(format!("attachment; filename=\"{}\"", self.target.name)),
            ..WriterOptions::new(self.report.attempts.get(), self.target.content_type)
        };
        let mut file = FileWriter::new(parameters, self.store.writer(self.target.name.as_str(), options))?;
        let mut snapshot =
            with_patience(self.patience, async || Snapshot::open(&self.catalogue).await).await?;
        let data_as_of = snapshot.data_as_of();
        let mut progress = Progress::begin();
        let mut albums = std::pin::pin!(snapshot.albums(parameters));
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
        crash_point(&format!("exporter.uploading.attempt-{}", self.report.attempts));
        Ok(Found::Uploaded(file, data_as_of))
    }

    /// Makes the file visible and tells the row.
    async fn end(&self, found: Found) -> Result<Outcome, Error> {
        let artifact = match found {
            Found::Earlier(artifact) => artifact,
            Found::Uploaded(file, data_as_of) => self.commit(file, data_as_of).await?,
        };
        self.complete(artifact).await
    }

    /// Makes the file visible, or takes over the one of an attempt that was faster.
    async fn commit(&self, file: UploadedFile, data_as_of: Timestamp) -> Result<Artifact, Error> {
        let (rows, bytes, sha256) = (file.rows, file.bytes, file.sha256);
        let metadata = FileMetadata {
            report_id: self.report.id,
            attempt: self.report.attempts,
            schema: SCHEMA.to_owned(),
            parameters: self.report.parameters.clone(),
            data_as_of,
            rows,
            sha256,
        };
        let disagreement = |facts: BlobFacts| Error::Disagreement {
            blob: facts.name,
            written: bytes,
            found: facts.bytes,
        };
        let facts = match file.commit(metadata.to_blob()?).await? {
            Commit::Created(facts) => facts,
            Commit::Exists(facts) => {
                tracing::info!(etag = facts.etag, "another attempt committed first");
                return match self.standing().await? {
                    Standing::File(artifact) => Ok(artifact),
                    // gone or damaged: the next attempt deals with it
                    Standing::Nothing | Standing::Damaged => Err(disagreement(facts)),
                };
            }
        };
        crash_point(&format!("exporter.after-commit.attempt-{}", self.report.attempts));
        if facts.bytes != bytes || facts.content_type.as_deref() != Some(self.target.content_type) {
            return Err(disagreement(facts));
        }
        Ok(Artifact {
            container: self.store.container().to_owned(),
            blob: self.target.name.clone(),
            bytes,
            rows,
            sha256,
            content_type: self.target.content_type.to_owned(),
            schema: SCHEMA.to_owned(),
            data_as_of,
        })
    }

    /// Tells the row, last of all. A report that has failed meanwhile keeps no file.
    async fn complete(&self, artifact: Artifact) -> Result<Outcome, Error> {
        let told = with_patience(self.patience, async || {
            reports::complete(&self.reports, self.report.id, &artifact, Timestamp::now()).await
        });
        match told.await? {
            Transition::Applied(_) => Ok(Outcome::Completed(artifact)),
            Transition::Superseded(State::Failed) => {
                tracing::info!(blob = %artifact.blob, "the report has failed meanwhile; removing its file");
                self.store.delete(artifact.blob.as_str()).await?;
                Ok(Outcome::Superseded(State::Failed))
            }
            Transition::Superseded(state) => Ok(Outcome::Superseded(state)),
            Transition::Unknown => Err(Error::UnknownReport(self.report.id)),
        }
    }
}
