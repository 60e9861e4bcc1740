//! The admin port: HTTP and JSON, for tests and for people. It has no authentication, so it belongs on the
//! loopback address.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json, Router,
    extract::{Path, Request, State, rejection::JsonRejection},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    broker::{Broker, Command, ConnectionCounters, QueueView, Refusal},
    clock::Moment,
    faults::{BrokerFaults, QueueFaults},
    queue::{Counters, QueueName, QueueSettings},
};

type Shared = State<Arc<Broker>>;

/// Serves the admin port until it is told to stop.
pub async fn serve(listener: TcpListener, broker: Arc<Broker>, shutdown: CancellationToken) {
    let stopped = shutdown.clone().cancelled_owned();
    let served = axum::serve(listener, router(broker)).with_graceful_shutdown(stopped);
    // A client that keeps a connection open must not keep the emulator up.
    if let Some(Err(error)) = shutdown.run_until_cancelled(served.into_future()).await {
        tracing::error!(error = &error as &dyn std::error::Error, "the admin port failed");
    }
}

fn router(broker: Arc<Broker>) -> Router {
    Router::new()
        .route("/_health", get(|| async { "ok\n" }))
        .route("/counters", get(counters))
        .route(
            "/faults",
            get(broker_faults)
                .put(set_broker_faults)
                .delete(clear_broker_faults),
        )
        .route("/connections/drop", post(drop_connections))
        .route("/connections/close", post(close_connections))
        .route("/queues", get(queues))
        .route(
            "/queues/{queue}",
            get(queue).put(define_queue).delete(delete_queue),
        )
        .route(
            "/queues/{queue}/faults",
            get(faults).put(set_faults).delete(clear_faults),
        )
        .route("/queues/{queue}/expire-locks", post(expire_locks))
        .route("/queues/{queue}/detach-links", post(detach_links))
        .route("/queues/{queue}/purge", post(purge))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&broker),
            answer_when_safe,
        ))
        .with_state(broker)
}

/// Like clients of AMQP, nobody here is told of a change before it is on disk.
async fn answer_when_safe(State(broker): Shared, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    if broker.journal().safe().await {
        response
    } else {
        Failure(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the store refused a write; the log says why".to_owned(),
        )
        .into_response()
    }
}

/// An error for whoever asked.
#[derive(Debug)]
struct Failure(StatusCode, String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(serde_json::json!({ "error": self.1 }))).into_response()
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let status = if refusal.condition == "amqp:not-found" {
            StatusCode::NOT_FOUND
        } else {
            StatusCode::INTERNAL_SERVER_ERROR
        };
        Self(status, refusal.description)
    }
}

impl From<JsonRejection> for Failure {
    fn from(rejection: JsonRejection) -> Self {
        Self(StatusCode::BAD_REQUEST, rejection.body_text())
    }
}

type Body<T> = Result<Json<T>, JsonRejection>;

fn named(queue: &str) -> Result<QueueName, Failure> {
    queue
        .parse()
        .map_err(|error: crate::queue::InvalidName| Failure(StatusCode::BAD_REQUEST, error.to_string()))
}

/// How many there were of what the caller asked to be done away with.
#[derive(Serialize)]
struct Affected {
    affected: usize,
}

#[derive(Serialize)]
struct AllCounters {
    connections: ConnectionCounters,
    queues: BTreeMap<QueueName, Counters>,
}

async fn counters(State(broker): Shared) -> Json<AllCounters> {
    let queues = broker
        .views(Moment::now())
        .into_iter()
        .map(|view| (view.name, view.counters))
        .collect();
    Json(AllCounters {
        connections: broker.connection_counters(),
        queues,
    })
}

async fn queues(State(broker): Shared) -> Json<Vec<QueueView>> {
    Json(broker.views(Moment::now()))
}

async fn queue(State(broker): Shared, Path(queue): Path<String>) -> Result<Json<QueueView>, Failure> {
    Ok(Json(broker.view(&named(&queue)?, Moment::now())?))
}

async fn define_queue(
    State(broker): Shared,
    Path(queue): Path<String>,
    settings: Result<Option<Json<Option<QueueSettings>>>, JsonRejection>,
) -> Result<(StatusCode, Json<QueueView>), Failure> {
    let name = named(&queue)?;
    // No body, and null, mean the defaults.
    let settings = settings?.and_then(|Json(settings)| settings).unwrap_or_default();
    let status = if broker.define_queue(&name, settings) {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(broker.view(&name, Moment::now())?)))
}

async fn delete_queue(State(broker): Shared, Path(queue): Path<String>) -> Result<StatusCode, Failure> {
    let name = named(&queue)?;
    if broker.delete_queue(&name) {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Refusal::queue_not_found(&name).into())
    }
}

async fn faults(State(broker): Shared, Path(queue): Path<String>) -> Result<Json<QueueFaults>, Failure> {
    Ok(Json(broker.view(&named(&queue)?, Moment::now())?.faults))
}

async fn set_faults(
    State(broker): Shared,
    Path(queue): Path<String>,
    faults: Body<QueueFaults>,
) -> Result<Json<QueueFaults>, Failure> {
    let Json(faults) = faults?;
    broker.set_faults(&named(&queue)?, faults.clone())?;
    Ok(Json(faults))
}

async fn clear_faults(State(broker): Shared, Path(queue): Path<String>) -> Result<StatusCode, Failure> {
    broker.set_faults(&named(&queue)?, QueueFaults::default())?;
    Ok(StatusCode::NO_CONTENT)
}

async fn broker_faults(State(broker): Shared) -> Json<BrokerFaults> {
    Json(broker.broker_faults())
}

async fn set_broker_faults(
    State(broker): Shared,
    faults: Body<BrokerFaults>,
) -> Result<Json<BrokerFaults>, Failure> {
    let Json(faults) = faults?;
    broker.set_broker_faults(faults.clone());
    Ok(Json(faults))
}

async fn clear_broker_faults(State(broker): Shared) -> StatusCode {
    broker.set_broker_faults(BrokerFaults::default());
    StatusCode::NO_CONTENT
}

async fn expire_locks(State(broker): Shared, Path(queue): Path<String>) -> Result<Json<Affected>, Failure> {
    Ok(Json(Affected {
        affected: broker.expire_locks(&named(&queue)?, Moment::now())?,
    }))
}

async fn purge(State(broker): Shared, Path(queue): Path<String>) -> Result<Json<Affected>, Failure> {
    Ok(Json(Affected {
        affected: broker.purge(&named(&queue)?)?,
    }))
}

/// The error that clients get.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AmqpError {
    condition: String,
    #[serde(default)]
    description: String,
}

async fn detach_links(
    State(broker): Shared,
    Path(queue): Path<String>,
    error: Body<AmqpError>,
) -> Result<StatusCode, Failure> {
    let (
        queue,
        Json(AmqpError {
            condition,
            description,
        }),
    ) = (named(&queue)?, error?);
    broker.view(&queue, Moment::now())?;
    broker.tell_all(&Command::DetachLinks {
        queue,
        condition,
        description,
    });
    Ok(StatusCode::NO_CONTENT)
}

async fn drop_connections(State(broker): Shared) -> Json<Affected> {
    Json(Affected {
        affected: broker.tell_all(&Command::Drop),
    })
}

async fn close_connections(State(broker): Shared, error: Body<AmqpError>) -> Result<Json<Affected>, Failure> {
    let Json(AmqpError {
        condition,
        description,
    }) = error?;
    Ok(Json(Affected {
        affected: broker.tell_all(&Command::Close {
            condition,
            description,
        }),
    }))
}
