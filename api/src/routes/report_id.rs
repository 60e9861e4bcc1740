//! The report id in a path.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use domain::ReportId;

use crate::error::ApiError;
use crate::service::Service;

/// The `{reportId}` of the path.
pub struct ReportIdInPath(pub ReportId);

impl FromRequestParts<Service> for ReportIdInPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, service: &Service) -> Result<Self, ApiError> {
        let Path(text) = Path::<String>::from_request_parts(parts, service)
            .await
            .map_err(|_| ApiError::InvalidReportId)?;
        let id = text.parse().map_err(|_| ApiError::InvalidReportId)?;
        tracing::Span::current().record("report.id", tracing::field::display(id));
        Ok(Self(id))
    }
}
