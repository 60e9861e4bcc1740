//! The paths, a file for each call.

mod get_report;
mod report_id;
mod request_report;

use std::any::Any;

use axum::extract::DefaultBodyLimit;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, middleware};
use tower_http::catch_panic::CatchPanicLayer;

use crate::error::ApiError;
use crate::observe::observe;
use crate::parameters::BODY_MAX;
use crate::service::Service;

/// Where reports are asked for.
pub const REQUEST_REPORT: &str = "/reports/popularity";
/// Where one report is.
pub const GET_REPORT: &str = "/reports/{reportId}";

/// The API's routes, with everything that stands around them.
pub fn router(service: Service) -> Router {
    Router::new()
        .route(REQUEST_REPORT, post(request_report::request_report))
        .route(GET_REPORT, get(get_report::get_report))
        .fallback(async || ApiError::UnknownPath)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(service.clone(), observe))
        .with_state(service)
}

/// The panic's text goes to the log alone: it may hold anything.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the layer wants a function of exactly this shape"
)]
fn panicked(payload: Box<dyn Any + Send>) -> Response {
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    tracing::error!(panic = text, "a handler panicked");
    ApiError::Panicked.into_response()
}
