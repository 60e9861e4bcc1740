//! `/_health`, `/_health/live`, `/_health/ready` and `/metrics`.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The longest that one check may take. Kubernetes gives a probe 1 s unless told otherwise; the
/// charts set 5 s.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

type CheckFuture = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

struct Check {
    name: &'static str,
    required: bool,
    run: Box<dyn Fn() -> CheckFuture + Send + Sync>,
}

/// The checks of a process, and its metrics.
///
/// * `GET /_health/live`: 200 as long as the process can answer.
/// * `GET /_health/ready`: 200 when every required check passes and the process is not shutting
///   down, else 503.
/// * `GET /_health`: every check by name; the status code is that of `ready`.
/// * `GET /metrics`: the registry in OpenMetrics text.
pub struct Health {
    checks: Vec<Check>,
    registry: Registry,
    shutdown: CancellationToken,
}

impl Health {
    /// No checks yet. From the moment the token is cancelled the process is not ready, so that
    /// load balancers take it out before it stops listening.
    pub fn new(registry: Registry, shutdown: CancellationToken) -> Self {
        Self {
            checks: Vec::new(),
            registry,
            shutdown,
        }
    }

    /// A check without which the process can do nothing: it is not ready while it fails. The text
    /// of a failure is shown to whoever asks, so it must hold no secret.
    #[must_use]
    pub fn require<F, R>(self, name: &'static str, run: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.with(name, true, run)
    }

    /// A check that `/_health` shows and that readiness does not hang on.
    #[must_use]
    pub fn observe<F, R>(self, name: &'static str, run: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.with(name, false, run)
    }

    fn with<F, R>(mut self, name: &'static str, required: bool, run: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.checks.push(Check {
            name,
            required,
            run: Box::new(move || Box::pin(run())),
        });
        self
    }

    /// The four routes.
    pub fn router(self) -> Router {
        Router::new()
            .route("/_health", get(health))
            .route("/_health/live", get(live))
            .route("/_health/ready", get(ready))
            .route("/metrics", get(metrics))
            .with_state(Arc::new(self))
    }
}

/// Serves a router until the token is cancelled, then lets the requests under way finish.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) -> io::Result<()> {
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
}

#[derive(Serialize)]
struct Report {
    status: &'static str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    checks: BTreeMap<&'static str, Outcome>,
}

#[derive(Serialize)]
struct Outcome {
    status: &'static str,
    required: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

const HEALTHY: &str = "healthy";
const DEGRADED: &str = "degraded";
const UNHEALTHY: &str = "unhealthy";

async fn live() -> Response {
    Report {
        status: HEALTHY,
        checks: BTreeMap::new(),
    }
    .into_response()
}

async fn ready(State(health): State<Arc<Health>>) -> Response {
    report(&health, |check| check.required).await.into_response()
}

async fn health(State(health): State<Arc<Health>>) -> Response {
    report(&health, |_| true).await.into_response()
}

async fn report(health: &Health, wanted: impl Fn(&Check) -> bool) -> Report {
    let running = health
        .checks
        .iter()
        .filter(|check| wanted(check))
        .map(async |check| {
            let outcome = match tokio::time::timeout(CHECK_TIMEOUT, (check.run)()).await {
                Ok(outcome) => outcome,
                Err(_) => Err(format!("no answer within {} s", CHECK_TIMEOUT.as_secs())),
            };
            (check, outcome)
        });
    let mut checks = BTreeMap::new();
    let mut status = HEALTHY;
    if health.shutdown.is_cancelled() {
        status = UNHEALTHY;
        checks.insert(
            "shutdown",
            Outcome {
                status: UNHEALTHY,
                required: true,
                message: Some("the process is shutting down".to_owned()),
            },
        );
    }
    for (check, outcome) in futures::future::join_all(running).await {
        let failed = outcome.is_err();
        status = match (failed, check.required) {
            (true, true) => UNHEALTHY,
            (true, false) if status == HEALTHY => DEGRADED,
            _ => status,
        };
        let outcome = Outcome {
            status: if failed { UNHEALTHY } else { HEALTHY },
            required: check.required,
            message: outcome.err(),
        };
        checks.insert(check.name, outcome);
    }
    Report { status, checks }
}

impl IntoResponse for Report {
    fn into_response(self) -> Response {
        let code = if self.status == UNHEALTHY {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::OK
        };
        (code, [(header::CACHE_CONTROL, "no-store")], Json(self)).into_response()
    }
}

async fn metrics(State(health): State<Arc<Health>>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &health.registry) {
        Ok(()) => (
            [(
                header::CONTENT_TYPE,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            )],
            text,
        )
            .into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics could not be written out");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use prometheus_client::metrics::counter::Counter;
    use rstest::rstest;
    use tower::ServiceExt;

    use super::*;

    async fn get(health: Health, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = health.router().oneshot(request).await.unwrap();
        let status = answer.status();
        let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    fn health() -> Health {
        Health::new(Registry::default(), CancellationToken::new())
    }

    async fn passes() -> Result<(), String> {
        Ok(())
    }

    async fn fails() -> Result<(), String> {
        Err("connection refused".to_owned())
    }

    #[rstest]
    #[case::live("/_health/live", StatusCode::OK, r#"{"status":"healthy"}"#)]
    #[case::ready(
        "/_health/ready",
        StatusCode::SERVICE_UNAVAILABLE,
        r#"{"status":"unhealthy","checks":{"database":{"status":"unhealthy","required":true,"message":"connection refused"}}}"#
    )]
    #[case::all(
        "/_health",
        StatusCode::SERVICE_UNAVAILABLE,
        r#"{"status":"unhealthy","checks":{"blob":{"status":"healthy","required":false},"database":{"status":"unhealthy","required":true,"message":"connection refused"}}}"#
    )]
    #[tokio::test]
    async fn a_failed_required_check_makes_the_process_unready_and_leaves_it_alive(
        #[case] path: &str,
        #[case] status: StatusCode,
        #[case] body: &str,
    ) {
        let health = health().require("database", fails).observe("blob", passes);
        assert_eq!(get(health, path).await, (status, body.to_owned()));
    }

    #[rstest]
    #[case::ready(
        "/_health/ready",
        r#"{"status":"healthy","checks":{"database":{"status":"healthy","required":true}}}"#
    )]
    #[case::all(
        "/_health",
        r#"{"status":"degraded","checks":{"blob":{"status":"unhealthy","required":false,"message":"connection refused"},"database":{"status":"healthy","required":true}}}"#
    )]
    #[tokio::test]
    async fn a_failed_observed_check_is_shown_and_leaves_the_process_ready(
        #[case] path: &str,
        #[case] body: &str,
    ) {
        let health = health().require("database", passes).observe("blob", fails);
        assert_eq!(get(health, path).await, (StatusCode::OK, body.to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_counts_as_failed() {
        let (status, body) = get(
            health().require("database", std::future::pending),
            "/_health/ready",
        )
        .await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains("no answer within 2 s"), "{body}");
    }

    #[tokio::test]
    async fn a_process_that_shuts_down_is_alive_and_not_ready() {
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        let health = || Health::new(Registry::default(), shutdown.clone()).require("database", passes);
        assert_eq!(get(health(), "/_health/live").await.0, StatusCode::OK);
        assert_eq!(
            get(health(), "/_health/ready").await.0,
            StatusCode::SERVICE_UNAVAILABLE
        );
    }

    #[tokio::test]
    async fn metrics_are_the_registry_in_openmetrics_text() {
        let mut registry = Registry::default();
        let counter = Counter::<u64>::default();
        registry.register("requests", "Requests answered", counter.clone());
        counter.inc();
        let (status, body) = get(Health::new(registry, CancellationToken::new()), "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(
            body,
            "# HELP requests Requests answered.\n# TYPE requests counter\nrequests_total 1\n# EOF\n"
        );
    }
}
