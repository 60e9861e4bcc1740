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
    let routes = Router::new()
        .route(REQUEST_REPORT, post(request_report::request_report))
        .route(GET_REPORT, get(get_report::get_report))
        .fallback(async || ApiError::UnknownPath);
    with_problems(routes)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(service.clone(), observe))
        .with_state(service)
}

/// The routes, with a problem document for a method that one of them does not take.
pub fn with_problems<S: Clone + Send + Sync + 'static>(routes: Router<S>) -> Router<S> {
    routes.method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
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

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::{Request, StatusCode, header};
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_problem_that_says_nothing_of_its_cause() {
        async fn panics() {
            panic!("the secret cause");
        }
        let router: Router = Router::new()
            .route("/", get(panics))
            .layer(CatchPanicLayer::custom(panicked));
        let request = Request::get("/").body(Body::empty()).unwrap();

        let answer = router.oneshot(request).await.unwrap();

        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/problem+json");
        let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(
            text.contains("internal-error") && !text.contains("secret"),
            "{text}"
        );
    }
}
