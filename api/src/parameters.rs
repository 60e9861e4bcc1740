//! The body of `POST /reports/popularity`.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use domain::Parameters;

use crate::error::ApiError;
use crate::service::Service;

/// The most bytes of a body that are read. The longest sensible parameters have under 2 KiB.
pub const BODY_MAX: usize = 16 * 1024;
/// The longest that a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The parameters that a request asks for: those of its body, or the defaults when it has none.
pub struct RequestedParameters(pub Parameters);

impl FromRequest<Service> for RequestedParameters {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &Service) -> Result<Self, ApiError> {
        let headers = request.headers().clone();
        let body = read(request).await?;
        if body.is_empty() {
            return Ok(Self(Parameters::default()));
        }
        if !is_plain_json(&headers) {
            return Err(ApiError::UnsupportedMediaType);
        }
        let json = serde_json::from_slice(&body).map_err(ApiError::MalformedBody)?;
        Ok(Self(Parameters::from_json(&json)?))
    }
}

async fn read(request: Request) -> Result<Bytes, ApiError> {
    tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, &()))
        .await
        .map_err(|_| ApiError::SlowBody)?
        .map_err(|rejection| match rejection.into_response().status() {
            StatusCode::PAYLOAD_TOO_LARGE => ApiError::BodyTooLarge { limit: BODY_MAX },
            _ => ApiError::UnreadableBody,
        })
}

fn is_plain_json(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let is_json = text(header::CONTENT_TYPE)
        .and_then(|value| value.split(';').next())
        .is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("application/json"));
    let is_plain = match headers.get(header::CONTENT_ENCODING) {
        None => true,
        Some(value) => value.as_bytes().eq_ignore_ascii_case(b"identity"),
    };
    is_json && is_plain
}

#[cfg(test)]
mod tests {
    use std::io;

    use axum::body::Body;
    use futures::stream;
    use rstest::rstest;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_given_up() {
        let never = Body::from_stream(stream::pending::<io::Result<Bytes>>());

        let outcome = read(Request::new(never)).await;

        assert!(matches!(outcome, Err(ApiError::SlowBody)), "{outcome:?}");
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_told_apart_from_one_that_is_too_large() {
        let broken = stream::iter([Ok(Bytes::from_static(b"{")), Err(io::Error::other("reset"))]);

        let outcome = read(Request::new(Body::from_stream(broken))).await;

        assert!(matches!(outcome, Err(ApiError::UnreadableBody)), "{outcome:?}");
    }

    #[rstest]
    #[case::json(Some("application/json"), None, true)]
    #[case::json_with_charset(Some("Application/JSON; charset=utf-8"), None, true)]
    #[case::json_with_identity(Some("application/json"), Some("identity"), true)]
    #[case::no_type(None, None, false)]
    #[case::form(Some("application/x-www-form-urlencoded"), None, false)]
    #[case::like_json(Some("application/jsonp"), None, false)]
    #[case::compressed(Some("application/json"), Some("gzip"), false)]
    fn only_plain_json_is_read(
        #[case] content_type: Option<&str>,
        #[case] encoding: Option<&str>,
        #[case] plain: bool,
    ) {
        let mut headers = HeaderMap::new();
        if let Some(value) = content_type {
            headers.insert(header::CONTENT_TYPE, value.parse().unwrap());
        }
        if let Some(value) = encoding {
            headers.insert(header::CONTENT_ENCODING, value.parse().unwrap());
        }
        assert_eq!(is_plain_json(&headers), plain);
    }
}
