//! `GET /reports/{reportId}`

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::{Artifact, Failure, Parameters, Progress, Report, ReportId, Sha256, State as ReportState};
use jiff::Timestamp;
use serde::Serialize;

use super::report_id::ReportIdInPath;
use crate::auth::Caller;
use crate::downloads::Unavailable;
use crate::error::ApiError;
use crate::etag;
use crate::service::Service;

/// How long a client should wait before it asks again for a report that is not finished: about half
/// the time that a small export takes.
pub const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Where the report is and, when it is finished, a link to its file.
pub async fn get_report(
    State(service): State<Service>,
    caller: Caller,
    ReportIdInPath(id): ReportIdInPath,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let now = Timestamp::now();
    let report = store::reports::get(&service.pool, id)
        .await?
        .filter(|report| caller.may_see(report))
        .ok_or(ApiError::ReportNotFound)?;
    if report.state().is_terminal() && report.expires_at <= now {
        return Err(ApiError::ReportExpired);
    }
    let tag = etag::of(&report, service.downloads.period(now));
    let known = headers.get_all(header::IF_NONE_MATCH).iter();
    let mut answer = if etag::matches_any(known, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Json(ReportAnswer::of(&service, &report, now).await).into_response()
    };
    let headers = answer.headers_mut();
    headers.insert(header::ETAG, tag);
    headers.insert(header::CACHE_CONTROL, cache_control(&report));
    if !report.state().is_terminal() {
        headers.insert(header::RETRY_AFTER, POLL_INTERVAL.as_secs().into());
    }
    Ok(answer)
}

/// An answer with a link in it is a secret and is kept nowhere; any other may be kept by its owner,
/// who asks each time whether it still holds.
fn cache_control(report: &Report) -> HeaderValue {
    HeaderValue::from_static(match report.progress {
        Progress::Completed { .. } => "no-store",
        _ => "private, no-cache",
    })
}

/// The report, as its owner sees it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ReportAnswer {
    report_id: ReportId,
    status: ReportState,
    parameters: Parameters,
    attempts: u32,
    created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<Timestamp>,
    expires_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<ReportResult>,
    #[serde(skip_serializing_if = "Option::is_none")]
    download_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    download_url_expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    download_unavailable: Option<Unavailable>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ReportError>,
}

#[derive(Debug, Serialize)]
struct ReportResult {
    file: ReportFile,
}

/// The finished file.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ReportFile {
    name: String,
    /// In bytes, as stored.
    size: u64,
    rows: u64,
    sha256: Sha256,
    content_type: String,
    schema: String,
    data_as_of: Timestamp,
}

/// Why there is no file.
#[derive(Debug, Serialize)]
struct ReportError {
    code: &'static str,
    message: String,
    retryable: bool,
}

impl ReportAnswer {
    async fn of(service: &Service, report: &Report, now: Timestamp) -> Self {
        let mut answer = Self {
            report_id: report.id,
            status: report.state(),
            parameters: report.parameters.clone(),
            attempts: report.attempts.get(),
            created_at: report.created_at,
            started_at: report.started_at,
            finished_at: report.finished_at(),
            expires_at: report.expires_at,
            result: None,
            download_url: None,
            download_url_expires_at: None,
            download_unavailable: None,
            error: None,
        };
        match &report.progress {
            Progress::Pending { .. } | Progress::Processing { .. } => {}
            Progress::Completed { artifact, .. } => {
                answer.result = Some(artifact.into());
                match service.downloads.link(report, artifact, now).await {
                    Ok(link) => {
                        answer.download_url = Some(link.expose().to_owned());
                        answer.download_url_expires_at = Some(link.expires_at());
                    }
                    Err(unavailable) => answer.download_unavailable = Some(unavailable),
                }
            }
            Progress::Failed { failure, .. } => answer.error = Some(failure.into()),
        }
        answer
    }
}

impl From<&Artifact> for ReportResult {
    fn from(artifact: &Artifact) -> Self {
        let Artifact {
            container: _,
            blob,
            bytes,
            rows,
            sha256,
            content_type,
            schema,
            data_as_of,
        } = artifact;
        Self {
            file: ReportFile {
                name: blob.to_string(),
                size: *bytes,
                rows: *rows,
                sha256: *sha256,
                content_type: content_type.clone(),
                schema: schema.clone(),
                data_as_of: *data_as_of,
            },
        }
    }
}

impl From<&Failure> for ReportError {
    fn from(failure: &Failure) -> Self {
        Self {
            code: failure.reason.as_str(),
            message: failure.message.clone(),
            retryable: failure.reason.retryable(),
        }
    }
}
