//! Reports with valid values in every field; a test changes what it is about.

use domain::{
    Artifact, BlobName, Compression, CustomResourceRef, Failure, FailureReason, OutboxId, Parameters, Report,
    ReportId, SCHEMA, Sha256,
};
use jiff::Timestamp;
use sqlx::{PgPool, Row as _};
use store::reports::{Adoption, Idempotency, NewReport, Requested, Transition};
use store::testing::TestDatabase;
use uuid::Uuid;

/// So many seconds into the tests' day.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::new(1_772_359_200 + seconds, 123_456_000).unwrap()
}

pub fn a_report() -> NewReport {
    let id = Uuid::now_v7();
    NewReport {
        id: ReportId::new(id),
        outbox_id: OutboxId::new(Uuid::now_v7()),
        requested_by: Uuid::new_v4(),
        parameters: Parameters {
            genre: Some("Drum & Bass".to_owned()),
            from: Some("2026-01-01T01:00:00+01:00".parse().unwrap()),
            limit: Some(25),
            ..Parameters::default()
        },
        idempotency: None,
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        cr_namespace: "reports-ns".to_owned(),
        most_unfinished: 1_000,
        cr_name: format!("report-{id}"),
        now: at(0),
        expires_at: at(7 * 24 * 3600),
    }
}

pub fn with_key(key: &str, fingerprint: u8) -> Option<Idempotency> {
    Some(Idempotency {
        key: key.to_owned(),
        fingerprint: Sha256::new([fingerprint; 32]),
    })
}

pub fn an_adoption() -> Adoption {
    let uid = Uuid::new_v4();
    Adoption {
        id: ReportId::new(uid),
        outbox_id: OutboxId::new(Uuid::now_v7()),
        parameters: Parameters::default(),
        custom_resource: CustomResourceRef {
            namespace: "team-a".to_owned(),
            name: "weekly".to_owned(),
            uid: uid.to_string(),
        },
        traceparent: None,
        now: at(0),
        expires_at: at(7 * 24 * 3600),
    }
}

pub fn an_artifact(report: ReportId) -> Artifact {
    Artifact {
        container: "reports".to_owned(),
        blob: BlobName::of(report, Compression::Gzip),
        bytes: 5_000_000_001,
        rows: 17,
        sha256: Sha256::new([0xab; 32]),
        content_type: "text/csv; charset=utf-8; header=present".to_owned(),
        schema: SCHEMA.to_owned(),
        data_as_of: at(90),
    }
}

pub fn a_failure() -> Failure {
    Failure::new(FailureReason::StorageRejected, "403 AuthorizationFailure")
}

/// Asked for over REST, by the API's role.
pub async fn requested(database: &TestDatabase, new: &NewReport) -> Report {
    match store::reports::request(&database.api_pool, new).await.unwrap() {
        Requested::Created(report) => *report,
        Requested::Existing(report) => panic!("{} is there already", report.id),
    }
}

/// How far a report is brought before the test begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Accepted,
    Dispatched,
    Processing,
    SecondAttempt,
    Completed,
    FailedBeforeItBegan,
    FailedWhileProcessing,
}

impl Stage {
    pub const ALL: [Self; 7] = [
        Self::Accepted,
        Self::Dispatched,
        Self::Processing,
        Self::SecondAttempt,
        Self::Completed,
        Self::FailedBeforeItBegan,
        Self::FailedWhileProcessing,
    ];
}

/// Brings a report there, each step by the role whose it is.
pub async fn at_stage(database: &TestDatabase, stage: Stage) -> ReportId {
    let TestDatabase {
        operator_pool,
        exporter_pool,
        ..
    } = database;
    let id = requested(database, &a_report()).await.id;
    let dispatch = async || applied(store::reports::dispatch(operator_pool, id, at(30)).await.unwrap());
    let begin = async |seconds| {
        applied(
            store::reports::begin(exporter_pool, id, at(seconds))
                .await
                .unwrap(),
        )
    };
    let fail = async || {
        applied(
            store::reports::fail(operator_pool, id, &a_failure(), at(120))
                .await
                .unwrap(),
        )
    };
    match stage {
        Stage::Accepted => {}
        Stage::Dispatched => {
            dispatch().await;
        }
        Stage::Processing => {
            dispatch().await;
            begin(60).await;
        }
        Stage::SecondAttempt => {
            dispatch().await;
            begin(60).await;
            begin(80).await;
        }
        Stage::Completed => {
            dispatch().await;
            begin(60).await;
            applied(
                store::reports::complete(exporter_pool, id, &an_artifact(id), at(120))
                    .await
                    .unwrap(),
            );
        }
        Stage::FailedBeforeItBegan => fail().await,
        Stage::FailedWhileProcessing => {
            dispatch().await;
            begin(60).await;
            fail().await;
        }
    }
    id
}

pub fn applied<T: std::fmt::Debug>(transition: Transition<T>) -> T {
    match transition {
        Transition::Applied(value) => value,
        other => panic!("not applied: {other:?}"),
    }
}

pub async fn get(database: &TestDatabase, id: ReportId) -> Report {
    store::reports::get(&database.api_pool, id)
        .await
        .unwrap()
        .expect("the report is there")
}

pub async fn count(pool: &PgPool, query: &'static str) -> i64 {
    sqlx::query(query).fetch_one(pool).await.unwrap().get(0)
}
