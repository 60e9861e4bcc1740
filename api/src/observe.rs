//! Around every request: its id, its span, its place in the metrics, its time limit, one log line.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::Instrument;
use tracing::field::Empty;
use uuid::Uuid;

use crate::error::ApiError;
use crate::metrics::Route;
use crate::service::Service;
use crate::traceparent::TraceParent;

/// The id of a request, the caller's or ours; every answer has it.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id that is taken over from a caller.
const REQUEST_ID_MAX_LEN: usize = 128;

/// The middleware. It stands outside of everything but the health routes.
pub async fn observe(State(service): State<Service>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let in_flight = service.metrics.request_began();
    let request_id = request_id(request.headers().get(&X_REQUEST_ID));
    let trace = TraceParent::of(request.headers().get("traceparent"));
    let method = request.method().clone();
    let path = request.extensions().get::<MatchedPath>().cloned();
    let path = path.as_ref().map_or("unknown", MatchedPath::as_str);
    let span = tracing::info_span!(
        "http.request",
        request.id = request_id.to_str().unwrap_or_default(),
        trace.id = trace.trace_id(),
        http.method = %method,
        http.route = path,
        user.id = Empty,
        report.id = Empty,
    );
    request.extensions_mut().insert(trace);

    let answered = tokio::time::timeout(service.request_timeout, next.run(request)).instrument(span.clone());
    let mut answer = match answered.await {
        Ok(answer) => answer,
        Err(_) => span.in_scope(|| ApiError::TimedOut.into_response()),
    };

    let (status, took) = (answer.status().as_u16(), began.elapsed());
    answer.headers_mut().insert(X_REQUEST_ID, request_id);
    service
        .metrics
        .request_answered(Route::from(path), &method, status, took);
    drop(in_flight);
    span.in_scope(|| {
        tracing::info!(
            http.status = status,
            duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "answered"
        );
    });
    answer
}

/// The caller's id where it is short and printable, so that it can be logged as it is.
fn request_id(given: Option<&HeaderValue>) -> HeaderValue {
    let usable = |value: &&HeaderValue| {
        (1..=REQUEST_ID_MAX_LEN).contains(&value.len())
            && value.as_bytes().iter().all(|byte| byte.is_ascii_graphic())
    };
    match given.filter(usable) {
        Some(value) => value.clone(),
        None => HeaderValue::try_from(Uuid::now_v7().to_string())
            .unwrap_or_else(|_| HeaderValue::from_static("unknown")),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn a_callers_request_id_is_kept() {
        let given = HeaderValue::from_static("8e03978e/retry-2");
        assert_eq!(request_id(Some(&given)), given);
    }

    #[rstest]
    #[case::empty("")]
    #[case::with_a_space("a b")]
    #[case::too_long(&"x".repeat(129))]
    fn anything_else_gets_a_new_one(#[case] given: &str) {
        let id = request_id(Some(&HeaderValue::from_str(given).unwrap()));
        assert!(Uuid::try_parse(id.to_str().unwrap()).is_ok(), "{id:?}");
    }
}
