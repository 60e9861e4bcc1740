//! Problem documents (RFC 9457): what every error looks like.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::ParameterError;
use serde::Serialize;

/// What the type of a problem begins with. The words behind it are stable: programs match on them.
pub const TYPE_BASE: &str = "https://reports.musicalbums.dev/problems/";

/// One problem document.
#[derive(Debug, Serialize)]
pub struct Problem {
    /// The stable name of the kind of problem, behind [`TYPE_BASE`].
    #[serde(rename = "type", serialize_with = "type_uri")]
    pub kind: &'static str,
    /// The kind in a few words; the same for every problem of the kind.
    pub title: &'static str,
    /// The HTTP status code.
    #[serde(serialize_with = "status_code")]
    pub status: StatusCode,
    /// What was wrong this time and what to do about it. Never a secret, never a cause from inside.
    pub detail: String,
    /// Every wrong field.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// One wrong field of a request.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FieldError {
    /// JSON Pointer (RFC 6901) into the body; left out for what is not in the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// The name of the field, header or path parameter; empty for the whole body.
    pub property_name: String,
    /// What is wrong with it.
    pub message: String,
}

impl From<&ParameterError> for FieldError {
    fn from(error: &ParameterError) -> Self {
        Self {
            pointer: Some(error.pointer.clone()),
            property_name: error.property.clone(),
            message: error.message.to_owned(),
        }
    }
}

fn type_uri<S: serde::Serializer>(kind: &&'static str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{TYPE_BASE}{kind}"))
}

fn status_code<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).unwrap_or_else(|error| {
            tracing::error!(%error, kind = self.kind, "a problem document could not be written");
            Vec::new()
        });
        let mut answer = Response::new(Body::from(body));
        *answer.status_mut() = self.status;
        let headers = answer.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        answer
    }
}
