//! `POST /reports/popularity`

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::{OutboxId, Parameters, Report, ReportId, State as ReportState};
use jiff::Timestamp;
use serde::Serialize;
use store::reports::{Idempotency, NewReport, Requested};
use uuid::Uuid;

use super::get_report::POLL_INTERVAL;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::idempotency::{IdempotencyKey, fingerprint};
use crate::metrics::ReportOutcome;
use crate::parameters::RequestedParameters;
use crate::service::Service;
use crate::traceparent::TraceParent;

/// Says that an answer is that of an earlier request with the same `Idempotency-Key`.
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Asks for a report. The answer is 202 as soon as row and outbox message are committed.
pub async fn request_report(
    State(service): State<Service>,
    caller: Caller,
    key: Option<IdempotencyKey>,
    trace: TraceParent,
    RequestedParameters(parameters): RequestedParameters,
) -> Result<Accepted, ApiError> {
    let now = Timestamp::now();
    let id = ReportId::new(Uuid::now_v7());
    let idempotency = key.map(|key| Idempotency {
        key: key.into_string(),
        fingerprint: fingerprint(&parameters),
    });
    let new = NewReport {
        id,
        outbox_id: OutboxId::new(Uuid::now_v7()),
        requested_by: caller.user_id,
        parameters,
        idempotency,
        traceparent: Some(trace.into_string()),
        cr_namespace: service.custom_resources.namespace().to_owned(),
        cr_name: crds::names::custom_resource(id),
        most_unfinished: service.most_unfinished,
        now,
        expires_at: now + service.retention,
    };
    let before_commit = || runtime::crash_point("api.before-commit");
    let (report, outcome) = match store::reports::request_with(&service.pool, &new, before_commit).await? {
        Requested::Created(report) => (report, ReportOutcome::Created),
        Requested::Existing(report) => (report, ReportOutcome::Replayed),
    };
    runtime::crash_point("api.after-commit");
    service.metrics.report_requested(outcome);
    tracing::Span::current().record("report.id", tracing::field::display(report.id));
    if outcome == ReportOutcome::Created {
        service.custom_resources.create_behind(&report);
    }
    Ok(Accepted::new(*report, outcome))
}

/// The answer. It is made of what never changes in a report, so that the same `Idempotency-Key` gets
/// the same answer whatever has become of the report meanwhile.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Accepted {
    report_id: ReportId,
    status: ReportState,
    parameters: Parameters,
    created_at: Timestamp,
    expires_at: Timestamp,
    #[serde(skip)]
    replayed: bool,
}

impl Accepted {
    fn new(report: Report, outcome: ReportOutcome) -> Self {
        Self {
            report_id: report.id,
            status: ReportState::Pending,
            parameters: report.parameters,
            created_at: report.created_at,
            expires_at: report.expires_at,
            replayed: outcome == ReportOutcome::Replayed,
        }
    }
}

impl IntoResponse for Accepted {
    fn into_response(self) -> Response {
        let location = format!("/reports/{}", self.report_id);
        let replayed = self.replayed;
        let mut answer = (StatusCode::ACCEPTED, Json(self)).into_response();
        let headers = answer.headers_mut();
        if let Ok(location) = HeaderValue::try_from(location) {
            headers.insert(header::LOCATION, location);
        }
        headers.insert(header::RETRY_AFTER, POLL_INTERVAL.as_secs().into());
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if replayed {
            headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
        }
        answer
    }
}
