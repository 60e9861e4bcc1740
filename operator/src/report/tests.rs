//! Every path of the reconcile, against a mocked API server and a real database: which requests are made,
//! in which order, and that there are no others.

mod accepting;
mod deleting;
mod ending;
mod launching;

use std::sync::Arc;

use blob::BlobStore;
use domain::{AttemptNumber, Failure, FailureReason, Parameters, Report, ReportId, State};
use kube::Client;
use kube::runtime::controller::Action;
use serde_json::{Value, json};
use sqlx::Executor;
use store::reports;
use store::testing::{TestDatabase, database};
use uuid::Uuid;

use crds::conditions::{self, reasons};
use crds::{PopularityReport, names};

use super::{Error, reconcile};
use crate::context::Context;
use crate::testing::*;

/// A database, and blob storage that has no file.
struct Here {
    database: TestDatabase,
    blobs: BlobStore,
}

impl Here {
    async fn new() -> Self {
        Self {
            database: database().await,
            blobs: blobs_that_answer(404, "BlobNotFound").await,
        }
    }

    /// With the row of [`object`], as an object that came first gets it.
    async fn with_row() -> Self {
        let here = Self::new().await;
        adopt(&here.database.operator_pool).await;
        here
    }

    async fn dispatched() -> Self {
        let here = Self::with_row().await;
        reports::dispatch(&here.database.operator_pool, report_id(), noon_and(2))
            .await
            .unwrap();
        here
    }

    async fn processing() -> Self {
        let here = Self::dispatched().await;
        reports::begin(&here.database.exporter_pool, report_id(), noon_and(4))
            .await
            .unwrap();
        here
    }

    async fn completed() -> Self {
        let here = Self::processing().await;
        reports::complete(
            &here.database.exporter_pool,
            report_id(),
            &artifact(),
            noon_and(9),
        )
        .await
        .unwrap();
        here
    }

    async fn failed(reason: FailureReason) -> Self {
        let here = Self::processing().await;
        let failure = Failure::new(reason, "");
        reports::fail(&here.database.operator_pool, report_id(), &failure, noon_and(9))
            .await
            .unwrap();
        here
    }

    fn context(&self, client: Client) -> Context {
        context(client, self.database.operator_pool.clone(), self.blobs.clone())
    }

    async fn row(&self) -> Report {
        reports::get(&self.database.operator_pool, report_id())
            .await
            .unwrap()
            .unwrap()
    }

    /// Reconciles once, and returns what the API server saw, body by body.
    async fn sees(
        &self,
        object: &PopularityReport,
        exchanges: impl IntoIterator<Item = Exchange>,
    ) -> (Result<Action, Error>, Vec<Value>) {
        let (client, seen) = api_server(exchanges);
        let context = Arc::new(self.context(client));
        let outcome = reconcile(Arc::new(object.clone()), context).await;
        (outcome, seen.bodies().await)
    }
}

fn reason_of(status: &Value, type_: &str) -> String {
    let conditions = status["status"]["conditions"].as_array().unwrap();
    let condition = conditions
        .iter()
        .find(|condition| condition["type"] == type_)
        .unwrap();
    condition["reason"].as_str().unwrap().to_owned()
}

fn deleted(over: Value) -> PopularityReport {
    let mut object = object(over);
    object.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(noon()));
    object
}
