//! A mock API server, a stand-in for blob storage, and builders of what tests look at.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use blob::{BlobConfig, BlobStore, RetryProfile};
use domain::{
    Artifact, AttemptNumber, BlobName, CustomResourceRef, Failure, Parameters, Progress, Report, ReportId,
    Sha256,
};
use http::{Request, Response};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::Client;
use kube::client::Body;
use kube::runtime::events::{Recorder, Reporter};
use prometheus_client::registry::Registry;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tower_test::mock;

use crds::{PopularityReport, names};

use crate::config::{Cli, Command, ExporterArgs};
use crate::context::{Context, Wakes};
use crate::metrics::Metrics;
use crate::places::Places;
use crate::report::dereference::World;

/// The namespace of every test; named unlike any object, so that swapped arguments are caught.
pub const NAMESPACE: &str = "music";
/// The object's name, unlike that of a REST report.
pub const NAME: &str = "best-of-may";
/// The uid of an object that came first, and so the id of its report.
pub const UID: &str = "5f0c2a4e-1111-4222-8333-444455556666";
/// The uid of its Job.
pub const JOB_UID: &str = "aaaaaaaa-0000-4000-8000-000000000001";
/// A missing request fails a test after this.
const PATIENCE: Duration = Duration::from_secs(10);

/// Noon, at which every test stands still.
pub fn noon() -> Timestamp {
    "2026-05-31T12:00:00Z".parse().unwrap()
}

/// So many seconds after [`noon`].
pub fn noon_and(seconds: i64) -> Timestamp {
    Timestamp::from_second(noon().as_second() + seconds).unwrap()
}

/// The report of [`UID`].
pub fn report_id() -> ReportId {
    UID.parse().unwrap()
}

/// Which object [`object`] is.
pub fn reference() -> CustomResourceRef {
    CustomResourceRef {
        namespace: NAMESPACE.to_owned(),
        name: NAME.to_owned(),
        uid: UID.to_owned(),
    }
}

/// An object with our finalizer, no status, and this laid over it (JSON merge patch).
pub fn object(over: Value) -> PopularityReport {
    let mut object = json!({
        "apiVersion": "reports.musicalbums.dev/v1alpha1",
        "kind": "PopularityReport",
        "metadata": {
            "namespace": NAMESPACE,
            "name": NAME,
            "uid": UID,
            "generation": 1,
            "resourceVersion": "7",
            "finalizers": [names::FINALIZER],
        },
        "spec": {},
    });
    merge(&mut object, over);
    serde_json::from_value(object).unwrap()
}

/// RFC 7396.
fn merge(onto: &mut Value, over: Value) {
    match over {
        Value::Object(fields) if onto.is_object() => {
            for (name, value) in fields {
                if value.is_null() {
                    onto.as_object_mut().unwrap().remove(&name);
                } else {
                    merge(&mut onto[name.as_str()], value);
                }
            }
        }
        other => *onto = other,
    }
}

/// The status of an object whose Job was created.
pub fn launched() -> Value {
    json!({ "reportId": UID, "job": { "name": format!("export-{UID}"), "uid": JOB_UID } })
}

/// A row that was accepted at noon, bound to [`object`], and is there.
pub fn row(progress: Progress) -> Report {
    let (attempts, started_at) = match &progress {
        Progress::Pending { .. } => (AttemptNumber::NONE, None),
        Progress::Failed { .. } => (AttemptNumber::NONE, None),
        Progress::Processing { attempt, started_at } => (*attempt, Some(*started_at)),
        Progress::Completed { .. } => (AttemptNumber::new(1), Some(noon_and(4))),
    };
    let dispatched_at = match &progress {
        Progress::Pending { dispatched_at } => *dispatched_at,
        _ => Some(noon_and(2)),
    };
    Report {
        id: report_id(),
        requested_by: None,
        parameters: Parameters::default(),
        progress,
        attempts,
        dispatched_at,
        started_at,
        relayed_at: dispatched_at.map(|_| noon_and(1)),
        custom_resource: Some(reference()),
        custom_resource_deleted_at: None,
        traceparent: None,
        created_at: noon(),
        expires_at: noon_and(1_000_000),
        updated_at: noon(),
    }
}

/// A file.
pub fn artifact() -> Artifact {
    Artifact {
        container: "reports".to_owned(),
        blob: BlobName::stored(format!("{UID}.csv")),
        bytes: 2_048,
        rows: 20,
        sha256: Sha256::new([0xab; 32]),
        content_type: "text/csv; charset=utf-8".to_owned(),
        schema: domain::SCHEMA.to_owned(),
        data_as_of: noon_and(4),
    }
}

/// Accepted, its message still on the way.
pub fn accepted() -> Report {
    row(Progress::Pending { dispatched_at: None })
}

/// Its message came through.
pub fn dispatched() -> Report {
    row(Progress::Pending {
        dispatched_at: Some(noon_and(2)),
    })
}

/// Its exporter is at work.
pub fn processing() -> Report {
    row(Progress::Processing {
        attempt: AttemptNumber::new(2),
        started_at: noon_and(4),
    })
}

/// Its file is there.
pub fn completed() -> Report {
    row(Progress::Completed {
        artifact: artifact(),
        finished_at: noon_and(9),
    })
}

/// It ended with this reason.
pub fn failed(reason: domain::FailureReason) -> Report {
    row(Progress::Failed {
        failure: Failure::new(reason, ""),
        finished_at: noon_and(9),
    })
}

/// The Job of [`object`], with this laid over it.
pub fn job(over: Value) -> Job {
    let mut job = json!({
        "metadata": {
            "namespace": NAMESPACE,
            "name": format!("export-{UID}"),
            "uid": JOB_UID,
            "labels": { names::REPORT_ID_LABEL: UID },
            "ownerReferences": [{
                "apiVersion": "reports.musicalbums.dev/v1alpha1", "kind": "PopularityReport",
                "name": NAME, "uid": UID, "controller": true,
            }],
        },
        "status": { "active": 1 },
    });
    merge(&mut job, over);
    serde_json::from_value(job).unwrap()
}

/// A Job that waits for its queue.
pub fn suspended_job() -> Job {
    job(json!({
        "metadata": { "labels": { names::QUEUE_NAME_LABEL: "nightly" } },
        "spec": { "suspend": true, "template": {} },
        "status": { "active": 0 },
    }))
}

/// A Job that failed for this reason.
pub fn failed_job(reason: &str) -> Job {
    job(json!({ "status": { "conditions": [
        { "type": "Failed", "status": "True", "reason": reason, "message": "said the Job controller" },
    ]}}))
}

/// A world with an object and nothing else.
pub fn world(object: PopularityReport) -> World {
    World {
        object,
        reference: reference(),
        report: report_id(),
        row: None,
        unreadable: None,
        job: None,
        pods: Vec::new(),
        was_rebound: false,
    }
}

impl World {
    /// With this row.
    pub fn with_row(self, row: Report) -> Self {
        Self {
            row: Some(row),
            ..self
        }
    }

    /// With this Job.
    pub fn with_job(self, job: Job) -> Self {
        Self {
            job: Some(job),
            ..self
        }
    }
}

/// The exporter's options as they are by default, with a Secret.
pub fn exporter() -> ExporterArgs {
    let line = [
        "operator",
        "run",
        "--reports-database-url=postgres://nobody@localhost/nothing",
        "--servicebus-namespace=nowhere",
        "--azure-storage-connection-string=nothing",
        "--exporter-image=exporter:1",
        "--exporter-env-secret=exporter",
        "--exporter-env=LOG=debug",
    ];
    match Cli::from_line(line.map(str::to_owned)).unwrap().command {
        Command::Run(config) => config.exporter,
        other => panic!("{other:?}"),
    }
}

/// A context of this client, database and blob storage, with one place, at [`noon_and`] 60.
pub fn context(client: Client, database: PgPool, blobs: BlobStore) -> Context {
    let reporter = Reporter {
        controller: names::REPORTER.to_owned(),
        instance: Some("test".to_owned()),
    };
    Context {
        recorder: Recorder::new(client.clone(), reporter),
        client,
        database,
        blobs,
        exporter: Arc::new(exporter()),
        places: Arc::new(Places::new(NonZeroUsize::MIN)),
        wakes: Wakes::new(),
        metrics: Metrics::register(&mut Registry::default()),
        clock: || noon_and(60),
    }
}

/// Blob storage that answers every request with this status and error code.
pub async fn blobs_that_answer(status: u16, code: &'static str) -> BlobStore {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 8_192];
                while connection.read(&mut request).await.is_ok_and(|read| read > 0) {
                    let answer = format!(
                        "HTTP/1.1 {status} Answer\r\nx-ms-error-code: {code}\r\ncontent-length: 0\r\n\r\n"
                    );
                    if connection.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    blobs_at(address)
}

fn blobs_at(address: SocketAddr) -> BlobStore {
    // the key of Azurite's well-known account would do as well; it is never checked
    let text = format!(
        "DefaultEndpointsProtocol=http;AccountName=test;AccountKey=dGVzdA==;BlobEndpoint=http://{address}/test;"
    );
    let config = BlobConfig {
        retry: RetryProfile::Interactive,
        ..BlobConfig::new(blob::Credential::ConnectionString(text.into()), "reports")
    };
    BlobStore::new(config).unwrap()
}

/// A broker of its own with one queue, and a client of it.
pub async fn broker() -> (servicebus_emulator::Running, servicebus::Client) {
    let config = servicebus_emulator::Config::in_memory().with_queue(
        QUEUE.parse().unwrap(),
        servicebus_emulator::QueueSettings::default(),
    );
    let broker = servicebus_emulator::Emulator::start(config).await.unwrap();
    let settings = broker
        .connection_string()
        .expose_secret()
        .parse::<servicebus::ConnectionString>()
        .unwrap()
        .into_settings();
    (broker, servicebus::Client::new(settings))
}

/// The queue of [`broker`].
pub const QUEUE: &str = "requests";

/// The row of [`object`], as an object that came first gets it, with its outbox message.
pub async fn adopt(database: &PgPool) {
    let adoption = store::reports::Adoption {
        id: report_id(),
        outbox_id: outbox_id(),
        parameters: Parameters::default(),
        custom_resource: reference(),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        now: noon(),
        expires_at: noon_and(1_000_000),
    };
    store::reports::adopt(database, &adoption).await.unwrap();
}

/// The id of the message of [`adopt`].
pub fn outbox_id() -> domain::OutboxId {
    domain::OutboxId::new(uuid::Uuid::from_u128(0x1234))
}

/// One request that the API server is to see, and its answer.
pub struct Exchange {
    verb: &'static str,
    path: String,
    query: Vec<&'static str>,
    answer: Answer,
}

enum Answer {
    /// This object.
    Found(Value),
    /// The object that was sent, as a server would return it.
    Stored(Value),
    /// A Status.
    Refused(u16, &'static str),
}

fn exchange(verb: &'static str, path: impl Into<String>, answer: Answer) -> Exchange {
    Exchange {
        verb,
        path: path.into(),
        query: Vec::new(),
        answer,
    }
}

impl Exchange {
    /// As our field manager.
    #[must_use]
    pub fn by_manager(self) -> Self {
        self.with("fieldManager=popularity-reports-operator")
    }

    /// With this in the query.
    #[must_use]
    pub fn with(mut self, query: &'static str) -> Self {
        self.query.push(query);
        self
    }

    /// About an object of this name instead of [`NAME`].
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.path = self.path.replace(NAME, name);
        self
    }

    /// About this report instead of [`report_id`].
    #[must_use]
    pub fn of(mut self, report: ReportId) -> Self {
        self.path = self.path.replace(UID, &report.to_string());
        self
    }

    /// Refused instead.
    #[must_use]
    pub fn refused(mut self, code: u16, message: &'static str) -> Self {
        self.answer = Answer::Refused(code, message);
        self
    }
}

/// Any request that is answered by this object.
pub fn found(verb: &'static str, path: &str, object: Value) -> Exchange {
    exchange(verb, path, Answer::Found(object))
}

/// Any request that is answered by the object that it sends.
pub fn stored_as_sent(verb: &'static str, path: &str) -> Exchange {
    exchange(verb, path, Answer::Stored(json!({})))
}

impl Exchange {
    /// The answer to a request with this body.
    pub fn into_response(self, body: &[u8]) -> Response<Body> {
        answer(self.answer, &parsed(body))
    }
}

fn parsed(body: &[u8]) -> Value {
    if body.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(body).unwrap()
    }
}

const CUSTOM: &str = "/apis/reports.musicalbums.dev/v1alpha1/namespaces/music/popularityreports";
const JOBS: &str = "/apis/batch/v1/namespaces/music/jobs";
const PODS: &str = "/api/v1/namespaces/music/pods";
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/music/events";

/// The object is read.
pub fn get_object(object: &PopularityReport) -> Exchange {
    let object = serde_json::to_value(object).unwrap();
    exchange("GET", format!("{CUSTOM}/{NAME}"), Answer::Found(object))
}

/// The Job is read, and is this one.
pub fn get_job(job: &Job) -> Exchange {
    let job = serde_json::to_value(job).unwrap();
    exchange("GET", format!("{JOBS}/export-{UID}"), Answer::Found(job))
}

/// The Job is read, and is not there.
pub fn get_no_job() -> Exchange {
    exchange(
        "GET",
        format!("{JOBS}/export-{UID}"),
        Answer::Refused(404, "not found"),
    )
}

/// The report's Pods are listed, and are these.
pub fn list_pods(pods: &Value) -> Exchange {
    let list = json!({ "apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": pods });
    exchange("GET", PODS, Answer::Found(list))
        .with("labelSelector=reports.musicalbums.dev%2Freport-id%3D5f0c2a4e-1111-4222-8333-444455556666")
}

/// The Job is created.
pub fn create_job() -> Exchange {
    exchange("POST", JOBS, Answer::Stored(json!({ "uid": JOB_UID }))).by_manager()
}

/// The Job is deleted.
pub fn delete_job() -> Exchange {
    exchange("DELETE", format!("{JOBS}/export-{UID}"), success())
}

/// A Pod is deleted.
pub fn delete_pod(name: &str) -> Exchange {
    exchange("DELETE", format!("{PODS}/{name}"), success())
}

/// The object is deleted.
pub fn delete_object() -> Exchange {
    exchange("DELETE", format!("{CUSTOM}/{NAME}"), success())
}

/// The object is created.
pub fn create_object() -> Exchange {
    exchange("POST", CUSTOM, Answer::Stored(json!({ "uid": UID }))).by_manager()
}

/// The object's metadata are patched.
pub fn patch_object(object: &PopularityReport) -> Exchange {
    let object = serde_json::to_value(object).unwrap();
    exchange("PATCH", format!("{CUSTOM}/{NAME}"), Answer::Found(object)).by_manager()
}

/// The status is applied.
pub fn apply_status(object: &PopularityReport) -> Exchange {
    let object = serde_json::to_value(object).unwrap();
    exchange("PATCH", format!("{CUSTOM}/{NAME}/status"), Answer::Found(object))
        .by_manager()
        .with("force=true")
}

/// An Event is sent.
pub fn create_event() -> Exchange {
    exchange("POST", EVENTS, Answer::Stored(json!({})))
}

fn success() -> Answer {
    Answer::Found(json!({ "apiVersion": "v1", "kind": "Status", "status": "Success" }))
}

/// What the mock saw.
pub struct Seen(JoinHandle<Vec<Value>>);

impl Seen {
    /// The bodies of the requests (null where there was none), once every exchange has taken place and the
    /// last client is gone. Fails the test when a request was missing, another, or one too many.
    pub async fn bodies(self) -> Vec<Value> {
        match self.0.await {
            Ok(bodies) => bodies,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

/// A client of an API server that sees exactly these requests, in this order.
pub fn api_server(exchanges: impl IntoIterator<Item = Exchange>) -> (Client, Seen) {
    let (service, mut handle) = mock::pair::<Request<Body>, Response<Body>>();
    let mut exchanges: VecDeque<Exchange> = exchanges.into_iter().collect();
    let served = tokio::spawn(async move {
        let mut bodies = Vec::new();
        while let Some(exchange) = exchanges.pop_front() {
            let expected = format!("{} {}", exchange.verb, exchange.path);
            let (request, respond) = timeout(PATIENCE, handle.next_request())
                .await
                .unwrap_or_else(|_| panic!("no request came, expected {expected}"))
                .unwrap_or_else(|| panic!("the client is gone, expected {expected}"));
            let (parts, body) = request.into_parts();
            let seen = format!("{} {}", parts.method, parts.uri.path());
            assert_eq!(seen, expected, "the wrong request");
            let query = parts.uri.query().unwrap_or_default();
            for part in &exchange.query {
                assert!(query.contains(part), "{seen}: the query has no {part}: {query}");
            }
            let body = parsed(&body.collect_bytes().await.unwrap());
            respond.send_response(answer(exchange.answer, &body));
            bodies.push(body);
        }
        if let Ok(Some((request, _))) = timeout(PATIENCE, handle.next_request()).await {
            panic!("one request too many: {} {}", request.method(), request.uri());
        }
        bodies
    });
    (Client::new(service, NAMESPACE), Seen(served))
}

fn answer(answer: Answer, sent: &Value) -> Response<Body> {
    let (code, body) = match answer {
        Answer::Found(object) => (200, object),
        Answer::Stored(metadata) => {
            let mut stored = sent.clone();
            merge(&mut stored["metadata"], metadata);
            (201, stored)
        }
        Answer::Refused(code, message) => {
            let reason = match code {
                403 => "Forbidden",
                404 => "NotFound",
                409 => "Conflict",
                422 => "Invalid",
                _ => "InternalError",
            };
            let status = json!({
                "apiVersion": "v1", "kind": "Status", "status": "Failure",
                "code": code, "message": message, "reason": reason,
            });
            (code, status)
        }
    };
    Response::builder()
        .status(code)
        .body(Body::from(serde_json::to_vec(&body).unwrap()))
        .unwrap()
}
