//! Reports in the state that a test is about, made by the store's own functions.

use domain::{
    Artifact, BlobName, Compression, CustomResourceRef, Failure, FailureReason, OutboxId, Parameters,
    ReportId, SCHEMA, Sha256,
};
use jiff::{SignedDuration, Timestamp};
use store::reports::{Adoption, NewReport, Transition};
use uuid::Uuid;

use super::{Api, USER};

/// The file of a completed report.
pub fn an_artifact(id: ReportId) -> Artifact {
    Artifact {
        container: "reports".to_owned(),
        blob: BlobName::of(id, Compression::None),
        bytes: 48_213,
        rows: 512,
        sha256: Sha256::new([0xab; 32]),
        content_type: "text/csv; charset=utf-8".to_owned(),
        schema: SCHEMA.to_owned(),
        data_as_of: "2026-01-31T12:00:00Z".parse().unwrap(),
    }
}

impl Api {
    /// A pending report of [`USER`].
    pub async fn a_report(&self) -> ReportId {
        let now = Timestamp::now();
        self.a_report_that_expires(now, now + SignedDuration::from_hours(1))
            .await
    }

    pub async fn a_report_that_expires(&self, now: Timestamp, expires_at: Timestamp) -> ReportId {
        let id = ReportId::new(Uuid::now_v7());
        let new = NewReport {
            id,
            outbox_id: OutboxId::new(Uuid::now_v7()),
            requested_by: USER,
            parameters: Parameters::default(),
            idempotency: None,
            traceparent: None,
            cr_namespace: "reports-test".to_owned(),
            most_unfinished: 1_000,
            cr_name: crds::names::custom_resource(id),
            now,
            expires_at,
        };
        store::reports::request(&self.database().api_pool, &new)
            .await
            .unwrap();
        id
    }

    /// How many reports there are.
    pub async fn rows(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM reports")
            .fetch_one(&self.database().admin_pool)
            .await
            .unwrap()
    }

    /// A report that came as a custom resource and belongs to no user.
    pub async fn a_report_from_kubernetes(&self) -> ReportId {
        let now = Timestamp::now();
        let id = ReportId::new(Uuid::new_v4());
        let adoption = Adoption {
            id,
            outbox_id: OutboxId::new(Uuid::now_v7()),
            parameters: Parameters::default(),
            custom_resource: CustomResourceRef {
                namespace: "reports-test".to_owned(),
                name: "by-hand".to_owned(),
                uid: id.to_string(),
            },
            traceparent: None,
            now,
            expires_at: now + SignedDuration::from_hours(1),
        };
        store::reports::adopt(&self.database().operator_pool, &adoption)
            .await
            .unwrap();
        id
    }

    pub async fn begin(&self, id: ReportId) {
        applied(
            store::reports::begin(&self.database().exporter_pool, id, Timestamp::now())
                .await
                .unwrap(),
        );
    }

    pub async fn complete(&self, id: ReportId) {
        self.complete_with(id, an_artifact(id)).await;
    }

    pub async fn complete_with(&self, id: ReportId, artifact: Artifact) {
        self.begin(id).await;
        applied(
            store::reports::complete(&self.database().exporter_pool, id, &artifact, Timestamp::now())
                .await
                .unwrap(),
        );
    }

    /// The custom resource of a report is deleted.
    pub async fn delete_custom_resource(&self, id: ReportId) {
        let recorded =
            store::reports::record_cr_deleted(&self.database().operator_pool, id, "a-uid", Timestamp::now())
                .await;
        assert!(recorded.unwrap());
    }

    pub async fn fail(&self, id: ReportId, reason: FailureReason) {
        let failure = Failure::new(reason, "");
        applied(
            store::reports::fail(&self.database().operator_pool, id, &failure, Timestamp::now())
                .await
                .unwrap(),
        );
    }
}

fn applied<T: std::fmt::Debug>(transition: Transition<T>) -> T {
    match transition {
        Transition::Applied(report) => report,
        other => panic!("the report did not move: {other:?}"),
    }
}
