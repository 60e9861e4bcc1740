//! The one error of the handlers, and the only place that knows what status code it gets.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::ParameterErrors;

use crate::auth::TokenError;
use crate::problem::{FieldError, Problem};

/// How long a client should wait when something that the API needs is away.
const UNAVAILABLE_RETRY: Duration = Duration::from_secs(5);

/// Why a request is not answered as it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No token, or one that is not believed.
    #[error("the token is not accepted")]
    Unauthenticated(#[from] TokenError),
    /// The issuer's keys cannot be had.
    #[error("the token issuer's keys are not available")]
    KeysUnavailable,
    /// No such path.
    #[error("no such path")]
    UnknownPath,
    /// The path exists, the method does not. The router adds `Allow`.
    #[error("the path does not take this method")]
    MethodNotAllowed,
    /// What stands for the report id in the path is none.
    #[error("the report id is not a UUID")]
    InvalidReportId,
    /// There is none, or it is somebody else's.
    #[error("there is no such report")]
    ReportNotFound,
    /// There was one.
    #[error("the report has expired")]
    ReportExpired,
    /// The body did not come to its end.
    #[error("the body could not be read")]
    UnreadableBody,
    /// The body did not come to its end in time.
    #[error("the body did not arrive in time")]
    SlowBody,
    /// The body is larger than any parameters.
    #[error("the body is too large")]
    BodyTooLarge {
        /// The most that is read, in bytes.
        limit: usize,
    },
    /// The body is something else than plain JSON.
    #[error("the body is not application/json")]
    UnsupportedMediaType,
    /// The body is not JSON.
    #[error("the body is not JSON")]
    MalformedBody(#[source] serde_json::Error),
    /// Fields are wrong.
    #[error("the parameters are not valid")]
    InvalidParameters(#[from] ParameterErrors),
    /// The `Idempotency-Key` cannot be one.
    #[error("the Idempotency-Key is not valid")]
    InvalidIdempotencyKey,
    /// The `Idempotency-Key` came before, with other parameters.
    #[error("the Idempotency-Key was used with other parameters")]
    IdempotencyKeyReused,
    /// The caller has as many unfinished reports as one may have.
    #[error("the caller has too many unfinished reports")]
    TooManyUnfinished {
        /// How many one may have.
        limit: u32,
        /// When an end is likely.
        retry_after: Duration,
    },
    /// PostgreSQL cannot be reached.
    #[error("the database is not available")]
    DatabaseUnavailable(#[source] store::reports::Error),
    /// PostgreSQL answered something that it should not.
    #[error("the database call failed")]
    Database(#[source] store::reports::Error),
    /// The answer took too long.
    #[error("the request was not answered in time")]
    TimedOut,
    /// A handler panicked.
    #[error("the request made the server panic")]
    Panicked,
}

impl From<store::reports::Error> for ApiError {
    fn from(error: store::reports::Error) -> Self {
        match error {
            store::reports::Error::IdempotencyKeyReused => Self::IdempotencyKeyReused,
            store::reports::Error::TooManyUnfinished { limit, retry_after } => {
                Self::TooManyUnfinished { limit, retry_after }
            }
            error if error.is_unavailable() => Self::DatabaseUnavailable(error),
            error => Self::Database(error),
        }
    }
}

impl ApiError {
    fn problem(&self) -> Problem {
        let (status, kind, title, detail) = match self {
            Self::Unauthenticated(error) => (
                StatusCode::UNAUTHORIZED,
                "unauthenticated",
                "A valid bearer token is needed",
                error.to_string(),
            ),
            Self::KeysUnavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "Something that the service needs is away",
                "the keys of the token's issuer cannot be fetched at the moment; try again".to_owned(),
            ),
            Self::UnknownPath => (
                StatusCode::NOT_FOUND,
                "unknown-path",
                "There is nothing at this path",
                "the paths are /reports/popularity and /reports/{reportId}".to_owned(),
            ),
            Self::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "The path does not take this method",
                "the Allow header lists the methods that the path takes".to_owned(),
            ),
            Self::InvalidReportId => (
                StatusCode::BAD_REQUEST,
                "invalid-report-id",
                "The report id is not valid",
                "the report id in the path must be a UUID, as POST /reports/popularity answered it".to_owned(),
            ),
            Self::ReportNotFound => (
                StatusCode::NOT_FOUND,
                "report-not-found",
                "There is no such report",
                "no report of yours has this id".to_owned(),
            ),
            Self::ReportExpired => (
                StatusCode::GONE,
                "report-expired",
                "The report has expired",
                "the report and its file are not kept any longer; request a new one".to_owned(),
            ),
            Self::UnreadableBody => (
                StatusCode::BAD_REQUEST,
                "unreadable-body",
                "The body could not be read",
                "the body ended before its announced length".to_owned(),
            ),
            Self::SlowBody => (
                StatusCode::REQUEST_TIMEOUT,
                "slow-body",
                "The body did not arrive in time",
                "the body must arrive within 10 seconds".to_owned(),
            ),
            Self::BodyTooLarge { limit } => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "body-too-large",
                "The body is too large",
                format!("the body may have {limit} bytes at most"),
            ),
            Self::UnsupportedMediaType => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported-media-type",
                "The body must be JSON",
                "send the parameters as Content-Type: application/json, without a Content-Encoding, or no body at all"
                    .to_owned(),
            ),
            Self::MalformedBody(_) => (
                StatusCode::BAD_REQUEST,
                "malformed-body",
                "The body is not JSON",
                "the body must be a JSON object of parameters, or empty".to_owned(),
            ),
            Self::InvalidParameters(_) => (
                StatusCode::BAD_REQUEST,
                "invalid-parameters",
                "The parameters are not valid",
                "correct the fields named in errors; fields that are left out take their defaults".to_owned(),
            ),
            Self::InvalidIdempotencyKey => (
                StatusCode::BAD_REQUEST,
                "invalid-idempotency-key",
                "The Idempotency-Key is not valid",
                "send one Idempotency-Key, new for each report, such as a UUID".to_owned(),
            ),
            Self::IdempotencyKeyReused => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency-key-reused",
                "The Idempotency-Key belongs to another request",
                "the key was used before with other parameters; send the same parameters, or a new key".to_owned(),
            ),
            Self::TooManyUnfinished { limit, .. } => (
                StatusCode::TOO_MANY_REQUESTS,
                "too-many-unfinished-reports",
                "Too many reports are unfinished",
                format!("one may have {limit} unfinished reports; ask again when one of yours has ended"),
            ),
            Self::DatabaseUnavailable(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "Something that the service needs is away",
                "the database cannot be reached at the moment; try again with the same Idempotency-Key".to_owned(),
            ),
            Self::TimedOut => (
                StatusCode::SERVICE_UNAVAILABLE,
                "timed-out",
                "The request was not answered in time",
                "whether it took effect is not known; try again with the same Idempotency-Key".to_owned(),
            ),
            Self::Database(_) | Self::Panicked => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal-error",
                "The service failed",
                "the cause is in the service's log, under this answer's X-Request-Id".to_owned(),
            ),
        };
        Problem {
            kind,
            title,
            status,
            detail,
            errors: self.fields(),
        }
    }

    fn fields(&self) -> Vec<FieldError> {
        let outside_body = |name: &str, message: &str| {
            vec![FieldError {
                pointer: None,
                property_name: name.to_owned(),
                message: message.to_owned(),
            }]
        };
        match self {
            Self::InvalidParameters(errors) => errors.0.iter().map(FieldError::from).collect(),
            Self::MalformedBody(error) => vec![FieldError {
                pointer: Some(String::new()),
                property_name: String::new(),
                message: error.to_string(),
            }],
            Self::InvalidReportId => outside_body("reportId", "must be a UUID"),
            Self::InvalidIdempotencyKey => outside_body(
                "Idempotency-Key",
                "must be 1 to 255 printable ASCII characters, given once",
            ),
            _ => Vec::new(),
        }
    }

    fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        match self {
            Self::Unauthenticated(error) => vec![(header::WWW_AUTHENTICATE, error.challenge())],
            Self::UnsupportedMediaType => {
                vec![(header::ACCEPT, HeaderValue::from_static("application/json"))]
            }
            Self::KeysUnavailable | Self::DatabaseUnavailable(_) | Self::TimedOut => {
                vec![(
                    header::RETRY_AFTER,
                    HeaderValue::from(UNAVAILABLE_RETRY.as_secs()),
                )]
            }
            Self::TooManyUnfinished { retry_after, .. } => {
                // whole seconds, rounded up: a client that comes early only waits once more
                let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
                vec![(header::RETRY_AFTER, HeaderValue::from(seconds))]
            }
            // RFC 9110, section 15.5.9: the connection is of no use, the rest of the body is unread
            Self::SlowBody => vec![(header::CONNECTION, HeaderValue::from_static("close"))],
            _ => Vec::new(),
        }
    }
}

impl IntoResponse for ApiError {
    /// The causes go to the log, here and once; the body tells what the caller can act on.
    fn into_response(self) -> Response {
        let problem = self.problem();
        if problem.status.is_server_error() {
            tracing::error!(
                error = &self as &dyn std::error::Error,
                problem = problem.kind,
                "{self}"
            );
        } else {
            tracing::debug!(
                error = &self as &dyn std::error::Error,
                problem = problem.kind,
                "{self}"
            );
        }
        let headers = self.headers();
        let mut answer = problem.into_response();
        answer.headers_mut().extend(headers);
        answer
    }
}
