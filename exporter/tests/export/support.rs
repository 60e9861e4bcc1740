//! A world for each test: a database with a catalogue, a container, and reports in it.

use blob::{BlobConfig, BlobFacts, BlobStore, Credential};
use clap::Parser as _;
use domain::{Artifact, OutboxId, Parameters, Progress, Report, ReportId};
use exporter::{Config, Error, Outcome};
use futures::TryStreamExt as _;
use jiff::{SignedDuration, Timestamp};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use sqlx::AssertSqlSafe;
use store::reports::{NewReport, Requested};
use store::testing::TestDatabase;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub struct World {
    pub database: TestDatabase,
    pub store: BlobStore,
    pub connection_string: String,
}

impl World {
    /// An empty catalogue and an empty container.
    pub async fn new() -> Self {
        let connection_string = azurite::connection_string().unwrap();
        let container = format!("t-{}", Uuid::new_v4().simple());
        let credential = Credential::ConnectionString(connection_string.as_str().into());
        let store = BlobStore::new(BlobConfig::new(credential, container)).unwrap();
        store.ensure_container().await.unwrap();
        Self {
            database: store::testing::database().await,
            store,
            connection_string,
        }
    }

    /// With the small catalogue that the golden files show.
    pub async fn with_catalogue() -> Self {
        let world = Self::new().await;
        world.sql(include_str!("catalogue.sql")).await;
        world
    }

    /// Runs statements as the owner of the catalogue.
    pub async fn sql(&self, statements: &str) {
        sqlx::raw_sql(AssertSqlSafe(statements))
            .execute(&self.database.admin_pool)
            .await
            .unwrap();
    }

    /// A report that waits for its exporter.
    pub async fn a_report(&self, parameters: Value) -> ReportId {
        let id = ReportId::new(Uuid::now_v7());
        let now = Timestamp::now();
        let new = NewReport {
            id,
            outbox_id: OutboxId::new(Uuid::now_v7()),
            requested_by: Uuid::new_v4(),
            parameters: Parameters::from_json(&parameters).unwrap(),
            idempotency: None,
            traceparent: None,
            cr_namespace: "default".into(),
            most_unfinished: 1_000,
            cr_name: format!("report-{id}"),
            now,
            expires_at: now + SignedDuration::from_hours(1),
        };
        let requested = store::reports::request(&self.database.api_pool, &new)
            .await
            .unwrap();
        assert!(matches!(requested, Requested::Created(_)));
        id
    }

    /// The options and their values for a report.
    pub fn options(&self, id: ReportId) -> Vec<(&'static str, String)> {
        vec![
            ("REPORT_ID", id.to_string()),
            (
                "REPORTS_DATABASE_URL",
                self.database.exporter_url.expose_secret().to_owned(),
            ),
            (
                "CATALOG_DATABASE_URL",
                self.database.exporter_url.expose_secret().to_owned(),
            ),
            ("AZURE_STORAGE_CONNECTION_STRING", self.connection_string.clone()),
            ("BLOB_CONTAINER", self.store.container().to_owned()),
            ("EXPORTER_PATIENCE", "0s".to_owned()),
        ]
    }

    pub fn config(&self, id: ReportId) -> Config {
        config(&self.options(id))
    }

    /// One attempt in this process.
    pub async fn export(&self, id: ReportId) -> Result<Outcome, Error> {
        exporter::run(&self.config(id), &CancellationToken::new()).await
    }

    /// One attempt at a report of these parameters, which must succeed; gives the stored bytes.
    pub async fn exported(&self, parameters: Value) -> Vec<u8> {
        let id = self.a_report(parameters).await;
        let outcome = self.export(id).await.unwrap();
        let Outcome::Completed(artifact) = outcome else {
            panic!("{outcome}");
        };
        self.bytes(artifact.blob.as_str()).await
    }

    pub async fn report(&self, id: ReportId) -> Report {
        store::reports::get(&self.database.exporter_pool, id)
            .await
            .unwrap()
            .expect("the report is there")
    }

    /// The file of a completed report.
    pub async fn artifact(&self, id: ReportId) -> Artifact {
        match self.report(id).await.progress {
            Progress::Completed { artifact, .. } => artifact,
            other => panic!("the report is not completed: {other:?}"),
        }
    }

    pub async fn bytes(&self, blob: &str) -> Vec<u8> {
        let content = self.store.read(blob).await.unwrap().expect("the blob is there");
        content.bytes.try_collect::<Vec<_>>().await.unwrap().concat()
    }

    /// All that is visible in the container.
    pub async fn blobs(&self) -> Vec<BlobFacts> {
        self.store.list(None).try_collect().await.unwrap()
    }
}

/// Options as a command line would have them.
pub fn config(options: &[(&'static str, String)]) -> Config {
    let flags = options
        .iter()
        .map(|(variable, value)| format!("--{}={value}", variable.to_ascii_lowercase().replace('_', "-")));
    Config::try_parse_from(std::iter::once("exporter".to_owned()).chain(flags)).unwrap()
}
