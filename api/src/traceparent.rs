//! The W3C trace context of a request, which goes with the report through outbox, message and Job.
//!
//! <https://www.w3.org/TR/trace-context/#traceparent-header>

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use uuid::Uuid;

/// A valid `traceparent`: the caller's, or a new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceParent(String);

impl TraceParent {
    /// Reads version 00. By the rules of the specification anything else starts a new trace.
    fn parse(text: &str) -> Option<Self> {
        let hexadecimal = |part: &str, length: usize| {
            part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let is_zero = |part: &str| part.bytes().all(|byte| byte == b'0');
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let valid = parts.next().is_none()
            && version == "00"
            && hexadecimal(trace, 32)
            && !is_zero(trace)
            && hexadecimal(span, 16)
            && !is_zero(span)
            && hexadecimal(flags, 2);
        valid.then(|| Self(text.to_owned()))
    }

    /// A new trace, not sampled: nobody asked for one.
    fn new(trace: Uuid, span: Uuid) -> Self {
        let span = span.as_u64_pair().0;
        Self(format!("00-{}-{span:016x}-00", trace.as_simple()))
    }

    /// The header's value.
    pub fn into_string(self) -> String {
        self.0
    }

    /// The 32 hexadecimal digits of the trace, for logs.
    pub fn trace_id(&self) -> &str {
        self.0.get(3..35).unwrap_or_default()
    }
}

impl<S: Sync> FromRequestParts<S> for TraceParent {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        // `observe` puts it there, for its span to name the same trace
        let known = parts.extensions.get::<Self>().cloned();
        Ok(known.unwrap_or_else(|| Self::of(parts.headers.get("traceparent"))))
    }
}

impl TraceParent {
    /// The header's, where it is valid, else a new one.
    pub fn of(header: Option<&axum::http::HeaderValue>) -> Self {
        header
            .and_then(|value| Self::parse(value.to_str().ok()?))
            .unwrap_or_else(|| Self::new(Uuid::new_v4(), Uuid::new_v4()))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_callers_trace_goes_on() {
        let parent = TraceParent::parse(VALID).unwrap();
        assert_eq!(parent.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(parent.into_string(), VALID);
    }

    #[test]
    fn a_new_trace_is_a_valid_one() {
        let parent = TraceParent::new(Uuid::new_v4(), Uuid::new_v4());
        assert_eq!(TraceParent::parse(&parent.0), Some(parent));
    }

    #[rstest]
    #[case::empty("")]
    #[case::other_version("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")]
    #[case::zero_trace("00-00000000000000000000000000000000-00f067aa0ba902b7-01")]
    #[case::zero_span("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01")]
    #[case::upper_case("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01")]
    #[case::short("00-4bf92f3577b34da6-00f067aa0ba902b7-01")]
    #[case::too_many_parts("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-00")]
    fn anything_else_is_passed_over(#[case] text: &str) {
        assert_eq!(TraceParent::parse(text), None);
    }
}
