//! Who gets in, by key or by token, and for how long.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, prelude::BASE64_STANDARD};
use fe2o3_amqp::{
    Receiver, Sender,
    sasl_profile::SaslProfile,
    types::{
        messaging::{ApplicationProperties, Body, Message, MessageId, Properties},
        primitives::SimpleValue,
    },
};
use hmac::{Hmac, Mac};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_amqp::Value;
use servicebus_emulator::{
    BrokerFaults, Config, Emulator, QueueSettings,
    config::{DEFAULT_KEY, DEFAULT_KEY_NAME},
};
use sha2::Sha256;

use crate::client::{Client, emulator, queue_name, within};

const AUDIENCE: &str = "sb://localhost/orders";

/// A shared access signature by the emulator's key.
fn token(lifetime: Duration) -> String {
    let expiry = (SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + lifetime).as_secs();
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let resource = encode(AUDIENCE);
    let mut mac = Hmac::<Sha256>::new_from_slice(DEFAULT_KEY.as_bytes()).unwrap();
    mac.update(format!("{resource}\n{expiry}").as_bytes());
    let signature = encode(&BASE64_STANDARD.encode(mac.finalize().into_bytes()));
    format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={DEFAULT_KEY_NAME}")
}

/// Puts a token; the status of a refusal and its text.
async fn put(client: &mut Client, token: &str, audience: &str) -> Result<(), String> {
    let attaching = Sender::attach(&mut client.session, "to $cbs", "$cbs");
    let mut sender = within("attaching to $cbs", attaching).await.unwrap();
    let attaching = Receiver::builder()
        .name("from $cbs")
        .source("$cbs")
        .target("answers")
        .attach(&mut client.session);
    let mut receiver = within("attaching to $cbs", attaching).await.unwrap();
    let request = Message::builder()
        .properties(
            Properties::builder()
                .message_id("1".to_owned())
                .reply_to("answers")
                .build(),
        )
        .application_properties(
            ApplicationProperties::builder()
                .insert("operation", "put-token")
                .insert("type", "servicebus.windows.net:sastoken")
                .insert("name", audience)
                .build(),
        )
        .value(token.to_owned())
        .build();

    within("putting a token", sender.send(request)).await.unwrap();
    let answer = within("the answer", receiver.recv::<Body<Value>>())
        .await
        .unwrap();

    let answer = answer.message();
    let id = answer.properties.as_ref().unwrap().correlation_id.clone();
    assert_eq!(id, Some(MessageId::from("1".to_owned())));
    let properties = answer.application_properties.as_ref().unwrap();
    let refused = match properties.0.get("status-code").unwrap() {
        SimpleValue::Int(202) => None,
        status => Some(format!(
            "{status:?}: {:?}",
            properties.0.get("status-description")
        )),
    };
    within("detaching", sender.close()).await.unwrap();
    within("detaching", receiver.close()).await.unwrap();
    refused.map_or(Ok(()), Err)
}

async fn anonymous(address: std::net::SocketAddr) -> Client {
    Client::connect_as(address, SaslProfile::Anonymous).await
}

#[tokio::test]
async fn without_a_token_no_queue_can_be_attached() {
    let emulator = emulator().await;
    let mut client = anonymous(emulator.amqp_addr()).await;

    let refused = within("attaching", Sender::attach(&mut client.session, "s", "orders"))
        .await
        .unwrap_err();

    assert!(
        format!("{refused:?}").contains("UnauthorizedAccess"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_token_opens_its_queue_and_its_dead_letters_and_no_other() {
    let emulator = emulator().await;
    emulator.define_queue(&queue_name("other"), QueueSettings::default());
    let mut client = anonymous(emulator.amqp_addr()).await;

    put(&mut client, &token(Duration::from_secs(60)), AUDIENCE)
        .await
        .unwrap();

    client.sender().await;
    client
        .receiver_of("amqps://localhost/ORDERS/$DeadLetterQueue")
        .await;
    let refused = within("attaching", Sender::attach(&mut client.session, "s", "other"))
        .await
        .unwrap_err();
    assert!(
        format!("{refused:?}").contains("UnauthorizedAccess"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_link_ends_when_its_token_does() {
    let emulator = emulator().await;
    let mut client = anonymous(emulator.amqp_addr()).await;
    put(&mut client, &token(Duration::from_secs(2)), AUDIENCE)
        .await
        .unwrap();
    let mut sender = client.sender().await;

    let ended = within("the detach", sender.on_detach()).await;

    assert!(format!("{ended:?}").contains("UnauthorizedAccess"), "{ended:?}");
}

#[tokio::test]
async fn a_token_put_again_in_time_keeps_the_link() {
    let emulator = emulator().await;
    let mut client = anonymous(emulator.amqp_addr()).await;
    put(&mut client, &token(Duration::from_secs(2)), AUDIENCE)
        .await
        .unwrap();
    let mut sender = client.sender().await;

    put(&mut client, &token(Duration::from_secs(60)), AUDIENCE)
        .await
        .unwrap();

    let ended = tokio::time::timeout(Duration::from_millis(2_500), sender.on_detach()).await;
    assert!(ended.is_err(), "{ended:?}");
}

#[tokio::test]
async fn a_token_for_a_queue_that_is_not_there_is_answered_with_404() {
    let emulator = emulator().await;
    emulator.delete_queue(&queue_name("orders"));
    let mut client = anonymous(emulator.amqp_addr()).await;

    let refused = put(&mut client, &token(Duration::from_secs(60)), AUDIENCE)
        .await
        .unwrap_err();

    assert!(refused.contains("404"), "{refused}");
}

#[tokio::test]
async fn a_token_can_be_refused_by_a_switch() {
    let emulator = emulator().await;
    emulator.set_broker_faults(BrokerFaults {
        refuse_tokens: 1,
        token_status: 500,
        ..BrokerFaults::default()
    });
    let mut client = anonymous(emulator.amqp_addr()).await;

    let refused = put(&mut client, &token(Duration::from_secs(60)), AUDIENCE)
        .await
        .unwrap_err();

    assert!(refused.contains("500"), "{refused}");
    put(&mut client, &token(Duration::from_secs(60)), AUDIENCE)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_entra_id_token_is_let_in_only_when_that_is_asked_for() {
    // {"exp": 4000000000}, unsigned.
    let jwt = "e30.eyJleHAiOjQwMDAwMDAwMDB9.e30";
    for accept_jwt in [false, true] {
        let config = Config {
            accept_jwt,
            ..Config::in_memory()
        };
        let emulator = Emulator::start(config.with_queue(queue_name("orders"), QueueSettings::default()))
            .await
            .unwrap();
        let mut client = anonymous(emulator.amqp_addr()).await;

        assert_eq!(put(&mut client, jwt, AUDIENCE).await.is_ok(), accept_jwt);
    }
}

#[tokio::test]
async fn a_wrong_key_does_not_get_past_sasl() {
    let emulator = emulator().await;
    let stream = tokio::net::TcpStream::connect(emulator.amqp_addr())
        .await
        .unwrap();
    let profile = SaslProfile::Plain {
        username: DEFAULT_KEY_NAME.to_owned(),
        password: "wrong".to_owned(),
    };

    let opening = fe2o3_amqp::Connection::builder()
        .container_id("c")
        .sasl_profile(profile)
        .open_with_stream(stream);

    assert!(within("opening", opening).await.is_err());
}
