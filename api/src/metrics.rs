//! What the service counts. Labels come from closed sets.

use std::time::Duration;

use axum::http::Method;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::auth::TokenError;
use crate::routes::{GET_REPORT, REQUEST_REPORT};

/// From a cached read to the request's time limit, in seconds.
const DURATION_BUCKETS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

/// The metrics of the process.
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabels, Histogram>,
    in_flight: Gauge,
    reports: Family<ReportLabels, Counter>,
    refused_tokens: Family<TokenLabels, Counter>,
    custom_resources: Family<CustomResourceLabels, Counter>,
}

/// The paths that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// `/reports/popularity`
    RequestReport,
    /// `/reports/{reportId}`
    GetReport,
    /// Any other.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum MethodLabel {
    Get,
    Head,
    Post,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: Route,
    method: MethodLabel,
    status: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: Route,
    method: MethodLabel,
}

/// What a request for a report came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum ReportOutcome {
    /// A new report.
    Created,
    /// The same `Idempotency-Key` again.
    Replayed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReportLabels {
    outcome: ReportOutcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    reason: &'static str,
}

/// What became of a custom resource that was to be created behind an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum CustomResourceOutcome {
    /// It is there.
    Created,
    /// Somebody was there first.
    Existed,
    /// Kubernetes refused it or could not be reached; the sweep will try.
    Failed,
    /// Too many are under way already; the sweep will do it.
    Skipped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CustomResourceLabels {
    outcome: CustomResourceOutcome,
}

impl EncodeLabelValue for Route {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        let template = match self {
            Self::RequestReport => REQUEST_REPORT,
            Self::GetReport => GET_REPORT,
            Self::Unknown => "unknown",
        };
        EncodeLabelValue::encode(&template, encoder)
    }
}

impl From<&str> for Route {
    fn from(template: &str) -> Self {
        match template {
            REQUEST_REPORT => Self::RequestReport,
            GET_REPORT => Self::GetReport,
            _ => Self::Unknown,
        }
    }
}

impl EncodeLabelValue for MethodLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        let word = match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Other => "other",
        };
        EncodeLabelValue::encode(&word, encoder)
    }
}

impl From<&Method> for MethodLabel {
    fn from(method: &Method) -> Self {
        match *method {
            Method::GET => Self::Get,
            Method::HEAD => Self::Head,
            Method::POST => Self::Post,
            _ => Self::Other,
        }
    }
}

impl Metrics {
    /// Registers everything.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS)),
            in_flight: Gauge::default(),
            reports: Family::default(),
            refused_tokens: Family::default(),
            custom_resources: Family::default(),
        };
        registry.register(
            "http_requests",
            "HTTP requests answered",
            metrics.requests.clone(),
        );
        registry.register_with_unit(
            "http_request_duration",
            "Time from the head of a request to the head of its answer",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        registry.register(
            "http_requests_in_flight",
            "HTTP requests being answered",
            metrics.in_flight.clone(),
        );
        registry.register(
            "reports_requested",
            "Requests for reports that were answered with 202",
            metrics.reports.clone(),
        );
        registry.register(
            "tokens_refused",
            "Requests without an acceptable bearer token",
            metrics.refused_tokens.clone(),
        );
        registry.register(
            "custom_resources",
            "PopularityReports to be created behind an answer, by what came of it",
            metrics.custom_resources.clone(),
        );
        metrics
    }

    /// Counts a request as being answered until the guard is dropped, however it ends.
    pub fn request_began(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// A request was answered.
    pub fn request_answered(&self, route: Route, method: &Method, status: u16, took: Duration) {
        let method = method.into();
        self.requests
            .get_or_create(&RequestLabels {
                route,
                method,
                status,
            })
            .inc();
        self.durations
            .get_or_create(&RouteLabels { route, method })
            .observe(took.as_secs_f64());
    }

    /// A request for a report was answered with 202.
    pub fn report_requested(&self, outcome: ReportOutcome) {
        self.reports.get_or_create(&ReportLabels { outcome }).inc();
    }

    /// A token was not accepted.
    pub fn token_refused(&self, error: TokenError) {
        let reason = error.reason();
        self.refused_tokens.get_or_create(&TokenLabels { reason }).inc();
    }

    /// A custom resource was to be created.
    pub fn custom_resource(&self, outcome: CustomResourceOutcome) {
        self.custom_resources
            .get_or_create(&CustomResourceLabels { outcome })
            .inc();
    }
}

/// One request that is being answered.
pub struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}
