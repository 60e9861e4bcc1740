//! An application that uses the REST API.

use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use uuid::Uuid;

use crate::tokens::Token;
use crate::until;

/// An application with a user's token.
#[derive(Clone)]
pub struct Application {
    base: String,
    token: Option<String>,
    http: reqwest::Client,
}

/// What the API answered.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; null when it is no JSON.
    pub body: Value,
}

impl Application {
    /// For an API at `base`, such as `http://127.0.0.1:8080`.
    pub fn new(base: &str, token: &Token) -> Self {
        Self {
            base: base.to_owned(),
            token: Some(token.encode()),
            http: reqwest::Client::builder()
                .timeout(Duration::from_secs(20))
                .build()
                .expect("an HTTP client"),
        }
    }

    /// The same without a token.
    #[must_use]
    pub fn anonymous(mut self) -> Self {
        self.token = None;
        self
    }

    /// Sends a request. None when there was no answer.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Option<Response> {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.ok()?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let text = answer.text().await.ok()?;
        Some(Response {
            status,
            headers,
            body: serde_json::from_str(&text).unwrap_or(Value::Null),
        })
    }

    /// `POST /reports/popularity`.
    pub async fn request(&self, parameters: &Value) -> Response {
        let answer = self.try_request(parameters).await;
        answer.expect("the API answers")
    }

    /// The same. None when there was no answer.
    pub async fn try_request(&self, parameters: &Value) -> Option<Response> {
        self.send(Method::POST, "/reports/popularity", &[], Some(parameters))
            .await
    }

    /// The same, which must be accepted; returns the report's id.
    pub async fn accepted(&self, parameters: &Value) -> Uuid {
        let answer = self.request(parameters).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.body);
        answer.report_id()
    }

    /// `GET /reports/{id}`.
    pub async fn report(&self, id: Uuid) -> Response {
        let answer = self.send(Method::GET, &format!("/reports/{id}"), &[], None).await;
        answer.expect("the API answers")
    }

    /// Polls until the report has ended, and returns the last answer.
    pub async fn finished(&self, id: Uuid, limit: Duration) -> Value {
        let ended = async || {
            let answer = self.report(id).await;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
            let status = answer.body["status"].as_str();
            matches!(status, Some("Completed" | "Failed")).then_some(answer.body)
        };
        until("REST says that the report has ended", limit, ended).await
    }

    /// Polls until the report has ended, and that must be well.
    pub async fn completed(&self, id: Uuid, limit: Duration) -> Value {
        let body = self.finished(id, limit).await;
        assert_eq!(body["status"], "Completed", "{body}");
        body
    }
}

impl Response {
    /// `reportId` of the body.
    pub fn report_id(&self) -> Uuid {
        let id = self.body["reportId"].as_str().and_then(|id| id.parse().ok());
        id.unwrap_or_else(|| panic!("no reportId in {}", self.body))
    }
}
