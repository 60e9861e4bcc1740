//! Health, metrics, starting and stopping.

use api::Server;
use reqwest::{Method, StatusCode};
use rstest::rstest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Answer, Api, NO_DATABASE, Token, USER, config};

#[tokio::test]
async fn with_its_database_the_service_is_ready() {
    let api = Api::start().await;

    for path in ["/_health", "/_health/live", "/_health/ready"] {
        let answer = Answer::to(api.anonymous(Method::GET, path)).await;
        assert_eq!(
            (answer.status, answer.body["status"].as_str()),
            (StatusCode::OK, Some("healthy")),
            "{path}"
        );
    }
}

#[tokio::test]
async fn without_its_database_the_service_is_alive_and_not_ready() {
    let api = Api::start_without_database(&[]).await;

    let live = Answer::to(api.anonymous(Method::GET, "/_health/live")).await;
    let ready = Answer::to(api.anonymous(Method::GET, "/_health/ready")).await;

    assert_eq!(live.status, StatusCode::OK);
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!ready.text.contains("database-secret"), "{}", ready.text);
}

#[tokio::test]
async fn requests_are_counted_by_path_method_and_status() {
    let api = Api::start().await;
    let id = Answer::to(api.post()).await.report_id();
    Answer::to(api.get(&format!("/reports/{id}"))).await;
    Answer::to(api.anonymous(Method::GET, &format!("/reports/{id}"))).await;
    Answer::to(api.anonymous(Method::GET, "/nowhere")).await;

    let metrics = Answer::to(api.anonymous(Method::GET, "/metrics")).await.text;

    for line in [
        r#"api_http_requests_total{route="/reports/popularity",method="POST",status="202"} 1"#,
        r#"api_http_requests_total{route="/reports/{reportId}",method="GET",status="200"} 1"#,
        r#"api_http_requests_total{route="/reports/{reportId}",method="GET",status="401"} 1"#,
        r#"api_http_requests_total{route="unknown",method="GET",status="404"} 1"#,
        r#"api_reports_requested_total{outcome="Created"} 1"#,
        r#"api_tokens_refused_total{reason="missing"} 1"#,
        "api_http_requests_in_flight 0",
    ] {
        assert!(metrics.lines().any(|other| other == line), "{line}\n{metrics}");
    }
    assert!(
        !metrics.contains(&id.to_string()) && !metrics.contains(&USER.to_string()),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_request_under_way_is_answered_before_the_service_stops() {
    let api = Api::start().await;
    let mut connection = TcpStream::connect(api.address).await.unwrap();
    let head = format!(
        "POST /reports/popularity HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{",
        Token::of(USER).signed()
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    // the request counts as under way: only its last byte is missing
    loop {
        let metrics = Answer::to(api.anonymous(Method::GET, "/metrics")).await.text;
        if metrics.contains("api_http_requests_in_flight 1") {
            break;
        }
    }

    api.shutdown.cancel();
    connection.write_all(b"}").await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();

    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    api.running.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_service_stops_when_the_grace_time_is_over_whatever_is_under_way() {
    let api = Api::start_without_database(&["--shutdown-grace-seconds=0"]).await;
    let mut connection = TcpStream::connect(api.address).await.unwrap();
    connection
        .write_all(b"POST /reports/popularity HTTP/1.1\r\nHost: api\r\nContent-Length: 2\r\n\r\n{")
        .await
        .unwrap();

    api.shutdown.cancel();

    api.running.await.unwrap().unwrap();
}

#[rstest]
#[case::short_key("--jwt-key=too-short", "JWT_KEY must have at least 32 bytes")]
#[case::keys_over_http(
    "--jwt-jwks-url=http://keys.example/jwks.json",
    "a key set must be fetched over https"
)]
#[case::no_database_url("--reports-database-url=reports", "the database URL")]
#[case::no_storage(
    "--azure-storage-connection-string=AccountName=x",
    "the storage connection string cannot be used"
)]
#[tokio::test]
async fn options_that_can_never_work_are_refused_at_the_start(#[case] option: &str, #[case] message: &str) {
    let error = Server::bind(config(&NO_DATABASE.into(), &[option]))
        .await
        .err()
        .unwrap();

    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    assert!(text.contains(message), "{text}");
    assert!(!text.contains("too-short"), "{text}");
}
