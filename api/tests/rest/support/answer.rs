use std::collections::BTreeMap;

use reqwest::header::HeaderMap;
use reqwest::{RequestBuilder, StatusCode};
use serde::Serialize;
use serde_json::Value;

/// What came back, read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
    pub text: String,
}

impl Answer {
    pub async fn to(request: RequestBuilder) -> Self {
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        let text = answer.text().await.unwrap();
        Self {
            status,
            headers,
            body: serde_json::from_str(&text).unwrap_or(Value::Null),
            text,
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The report's id, of an answer that has one.
    pub fn report_id(&self) -> domain::ReportId {
        self.body["reportId"].as_str().unwrap().parse().unwrap()
    }

    /// The kind of a problem: the last part of its type.
    pub fn problem(&self) -> &str {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let kind = self.body["type"].as_str().unwrap();
        kind.rsplit('/').next().unwrap()
    }

    /// Status, the headers that mean something, and body: for a snapshot.
    pub fn shown(&self) -> impl Serialize {
        #[derive(Serialize)]
        struct Shown<'a> {
            status: u16,
            headers: BTreeMap<&'a str, &'a str>,
            body: &'a Value,
        }
        let incidental = ["content-length", "date", "x-request-id"];
        let headers = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .filter(|(name, _)| !incidental.contains(name));
        Shown {
            status: self.status.as_u16(),
            headers: headers.collect(),
            body: &self.body,
        }
    }
}

/// A snapshot of an answer, in which ids, times and signatures that differ each time are named only.
macro_rules! assert_answer {
    ($answer:expr) => {{
        let answer = &$answer;
        let mut settings = insta::Settings::clone_current();
        settings.add_filter(
            r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
            "[uuid]",
        );
        settings.add_filter(r"\b20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z", "[time]");
        settings.add_filter(
            r"20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9]{2}%3A[0-9]{2}%3A[0-9]{2}Z",
            "[time]",
        );
        settings.add_filter(r"sig=[A-Za-z0-9%]+", "sig=[signature]");
        settings.add_filter(r#"W/\\"[0-9a-f-]+\\""#, "[etag]");
        settings.bind(|| insta::assert_json_snapshot!(answer.shown()));
    }};
}
pub(crate) use assert_answer;
