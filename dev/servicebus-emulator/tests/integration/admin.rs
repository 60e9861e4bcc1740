//! The admin port.

use reqwest::{Method, StatusCode};
use rstest::rstest;
use serde_json::{Value, json};
use servicebus_emulator::Running;

use crate::client::{Client, emulator, orders, receive, send};

async fn request(emulator: &Running, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
    let url = format!("http://{}{path}", emulator.admin_addr());
    let mut request = reqwest::Client::new().request(method, url);
    if let Some(body) = body {
        request = request.json(&body);
    }
    let response = request.send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

#[tokio::test]
async fn a_queue_is_made_changed_looked_at_and_deleted() {
    let emulator = emulator().await;

    let (made, _) = request(
        &emulator,
        Method::PUT,
        "/queues/New",
        Some(json!({ "lock": "3s" })),
    )
    .await;
    let (changed, view) = request(
        &emulator,
        Method::PUT,
        "/queues/new",
        Some(json!({ "lock": "4s", "max-delivery-count": 2 })),
    )
    .await;
    assert_eq!((made, changed), (StatusCode::CREATED, StatusCode::OK));
    assert_eq!(
        (&view["settings"]["lock"], &view["settings"]["max-delivery-count"]),
        (&json!("4s"), &json!(2))
    );

    let (_, all) = request(&emulator, Method::GET, "/queues", None).await;
    assert_eq!(all.as_array().unwrap().len(), 2);
    let (deleted, _) = request(&emulator, Method::DELETE, "/queues/new", None).await;
    let (gone, error) = request(&emulator, Method::GET, "/queues/new", None).await;
    assert_eq!((deleted, gone), (StatusCode::NO_CONTENT, StatusCode::NOT_FOUND));
    assert_eq!(error["error"], "The messaging entity 'new' could not be found.");
}

#[rstest]
#[case::no_body(None)]
#[case::null(Some(Value::Null))]
#[case::nothing_set(Some(json!({})))]
#[tokio::test]
async fn a_queue_made_without_settings_has_the_defaults(#[case] body: Option<Value>) {
    let emulator = emulator().await;

    let (status, view) = request(&emulator, Method::PUT, "/queues/new", body).await;

    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(view["settings"], json!(orders(&emulator).settings));
}

#[rstest]
#[case::unknown_setting("/queues/q", json!({ "locks": "3s" }), "unknown field `locks`")]
#[case::bad_duration("/queues/q", json!({ "lock": "soon" }), "\"soon\" is not a duration")]
#[case::bad_name("/queues/a b", json!({}), "not a queue name")]
#[case::unknown_switch("/queues/orders/faults", json!({ "explode": 1 }), "unknown field `explode`")]
#[case::unknown_broker_switch("/faults", json!({ "explode": 1 }), "unknown field `explode`")]
#[tokio::test]
async fn a_bad_request_says_what_is_wrong(#[case] path: &str, #[case] body: Value, #[case] says: &str) {
    let emulator = emulator().await;

    let (status, answer) = request(&emulator, Method::PUT, path, Some(body)).await;

    assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
    assert!(answer["error"].as_str().unwrap().contains(says), "{answer}");
}

#[rstest]
#[case(Method::GET, "/queues/nowhere")]
#[case(Method::DELETE, "/queues/nowhere")]
#[case(Method::GET, "/queues/nowhere/faults")]
#[case(Method::POST, "/queues/nowhere/expire-locks")]
#[case(Method::POST, "/queues/nowhere/purge")]
#[tokio::test]
async fn a_queue_that_is_not_there_is_not_found(#[case] method: Method, #[case] path: &str) {
    let emulator = emulator().await;

    assert_eq!(
        request(&emulator, method, path, None).await.0,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn switches_are_set_seen_counting_down_and_cleared() {
    let emulator = emulator().await;
    let mut client = Client::connect(emulator.amqp_addr()).await;
    let mut sender = client.sender().await;

    let (set, _) = request(
        &emulator,
        Method::PUT,
        "/queues/orders/faults",
        Some(json!({ "refuse_sends": { "next": 2 } })),
    )
    .await;
    send(&mut sender, "a").await;
    let (_, left) = request(&emulator, Method::GET, "/queues/orders/faults", None).await;
    let (cleared, _) = request(&emulator, Method::DELETE, "/queues/orders/faults", None).await;

    assert_eq!((set, cleared), (StatusCode::OK, StatusCode::NO_CONTENT));
    assert_eq!(left["refuse_sends"]["next"], 1);
    assert_eq!(orders(&emulator).faults, Default::default());
}

#[tokio::test]
async fn counts_and_counters_follow_the_messages() {
    let emulator = emulator().await;
    let mut client = Client::connect(emulator.amqp_addr()).await;
    let mut sender = client.sender().await;
    for id in ["a", "b"] {
        send(&mut sender, id).await;
    }
    let mut receiver = client.receiver().await;
    receive(&mut receiver).await;

    let (_, queue) = request(&emulator, Method::GET, "/queues/orders", None).await;
    let (_, counters) = request(&emulator, Method::GET, "/counters", None).await;
    let (_, expired) = request(&emulator, Method::POST, "/queues/orders/expire-locks", None).await;
    let (_, purged) = request(&emulator, Method::POST, "/queues/orders/purge", None).await;

    assert_eq!(
        (
            &queue["active"],
            &queue["locked"],
            &queue["dead_letters"]["active"]
        ),
        (&json!(1), &json!(1), &json!(0))
    );
    assert_eq!(counters["queues"]["orders"]["sent"], 2);
    assert_eq!(
        (
            &counters["connections"]["open"],
            &counters["connections"]["accepted"]
        ),
        (&json!(1), &json!(1))
    );
    assert_eq!(
        (&expired["affected"], &purged["affected"]),
        (&json!(1), &json!(2))
    );
}

#[tokio::test]
async fn connections_can_be_dropped_closed_and_refused() {
    let emulator = emulator().await;
    let mut client = Client::connect(emulator.amqp_addr()).await;

    let (_, dropped) = request(&emulator, Method::POST, "/connections/drop", None).await;
    client.connection.on_close().await.unwrap_err();
    let error = json!({ "condition": "amqp:connection:forced", "description": "x" });
    let (_, closed) = request(&emulator, Method::POST, "/connections/close", Some(error)).await;
    let (refusing, _) = request(
        &emulator,
        Method::PUT,
        "/faults",
        Some(json!({ "refuse_connections": true })),
    )
    .await;
    let (cleared, _) = request(&emulator, Method::DELETE, "/faults", None).await;

    assert_eq!(dropped["affected"], 1);
    assert!(closed["affected"].is_u64());
    assert_eq!((refusing, cleared), (StatusCode::OK, StatusCode::NO_CONTENT));
    Client::connect(emulator.amqp_addr()).await;
}

#[tokio::test]
async fn it_says_that_it_is_healthy() {
    let emulator = emulator().await;

    assert_eq!(
        request(&emulator, Method::GET, "/_health", None).await.0,
        StatusCode::OK
    );
}
