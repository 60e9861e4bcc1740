//! Who may do what: keys, signatures, tokens and their renewal.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use azure_core::credentials::{AccessToken, Secret, TokenCredential, TokenRequestOptions};
use azure_core::time::OffsetDateTime;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use secrecy::ExposeSecret;
use servicebus::{Client, Credential, Error, Outcome, SenderOptions};
use servicebus_emulator::{BrokerFaults, Config, QueueSettings};

use crate::broker::{
    a_message, a_queue, an_emulated_queue, drain, emulated, only, recv, send, send_one, within,
};

#[tokio::test]
async fn wrong_key_is_told_at_once_and_everywhere() {
    let broker = a_queue().await;
    let mut settings = broker.settings.clone();
    settings.credential = Credential::SharedAccessKey {
        name: "RootManageSharedAccessKey".into(),
        key: "not the key".into(),
    };
    let client = Client::new(settings);

    let probed = within(client.probe(&broker.queue)).await.unwrap_err();
    let sent = only(
        within(
            client
                .sender(&broker.queue, SenderOptions::default())
                .send(vec![a_message("m")]),
        )
        .await,
    );
    let receiver = client.receiver(&broker.queue, 1);
    let received = within(receiver.recv()).await.unwrap_err();

    let Outcome::Refused(sent) = sent else {
        panic!("{sent:?}")
    };
    for error in [probed, sent, received] {
        assert!(matches!(error, Error::Authorise { .. }), "{error:?}");
        assert!(!error.is_retriable(), "{error:?}");
    }
    let noted = client.health().last_error.expect("a failure is noted");
    assert_eq!(noted.error.reason(), "Authorise");
}

#[tokio::test]
async fn unknown_queue_is_told_at_once_and_everywhere() {
    let broker = a_queue().await;
    let client = broker.client();
    let queue = format!("{}-that-does-not-exist", broker.queue);

    let probed = within(client.probe(&queue)).await.unwrap_err();
    let sent = only(
        within(
            client
                .sender(&queue, SenderOptions::default())
                .send(vec![a_message("m")]),
        )
        .await,
    );
    let receiver = client.receiver(&queue, 1);
    let received = within(receiver.recv()).await.unwrap_err();

    let Outcome::Refused(sent) = sent else {
        panic!("{sent:?}")
    };
    for error in [probed, sent, received] {
        assert!(error.is_not_found(), "{error:?}");
        assert!(!error.is_retriable(), "{error:?}");
    }
    within(client.probe(&broker.queue)).await.unwrap();
}

#[tokio::test]
async fn token_is_renewed_before_it_expires() {
    let broker = a_queue().await;
    let mut settings = broker.settings.clone();
    settings.sas_lifetime = Duration::from_secs(3);
    let client = Client::new(settings);
    let sender = client.sender(&broker.queue, SenderOptions::default());
    let receiver = client.receiver(&broker.queue, 1);

    // Two lifetimes: without renewal the broker would have detached the links by then.
    let end = tokio::time::Instant::now() + Duration::from_secs(6);
    let mut number = 0;
    while tokio::time::Instant::now() < end {
        send(&sender, vec![a_message(&format!("m{number}"))]).await;
        drain(&receiver, 1).await;
        number += 1;
        tokio::time::sleep(Duration::from_millis(250)).await;
    }

    let health = client.health();
    assert_eq!(health.connections_opened, 1);
    assert!(health.last_error.is_none(), "{:?}", health.last_error);
}

#[tokio::test]
async fn ready_made_signature_opens_the_queue() {
    let broker = a_queue().await;
    let Credential::SharedAccessKey { name, key } = &broker.settings.credential else {
        panic!("this test makes the signature itself");
    };
    let (scheme, colon) = ("sb%3A%2F%2F", "%3A");
    let (host, port) = (&broker.settings.endpoint.host, broker.settings.endpoint.port);
    let resource = format!("{scheme}{host}{colon}{port}%2F{}", broker.queue);
    let expiry = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 60;
    let key = Secret::new(BASE64_STANDARD.encode(key.expose_secret()));
    let signature = azure_core::hmac::hmac_sha256(&format!("{resource}\n{expiry}"), &key).unwrap();
    let signature = signature
        .replace('+', "%2B")
        .replace('/', "%2F")
        .replace('=', "%3D");
    let token = format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={name}");
    let mut settings = broker.settings.clone();
    settings.credential = Credential::SharedAccessSignature(token.into());
    let client = Client::new(settings);

    send_one(&client, &broker.queue, "m").await;

    assert_eq!(drain(&client.receiver(&broker.queue, 1), 1).await, ["m"]);
}

/// An identity whose tokens are valid for a few seconds.
#[derive(Debug, Default)]
struct Identity {
    asked: AtomicU32,
}

#[async_trait::async_trait]
impl TokenCredential for Identity {
    async fn get_token(
        &self,
        scopes: &[&str],
        _: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        assert_eq!(scopes, ["https://servicebus.azure.net/.default"]);
        self.asked.fetch_add(1, Ordering::SeqCst);
        let expires_on = OffsetDateTime::now_utc() + Duration::from_secs(3);
        let part = |json: String| BASE64_URL_SAFE_NO_PAD.encode(json);
        let header = part(r#"{"alg":"RS256","typ":"JWT"}"#.to_owned());
        let claims = part(format!(
            r#"{{"aud":"https://servicebus.azure.net","exp":{}}}"#,
            expires_on.unix_timestamp()
        ));
        Ok(AccessToken::new(
            format!("{header}.{claims}.c2lnbmF0dXJl"),
            expires_on,
        ))
    }
}

#[tokio::test]
async fn identity_is_asked_for_a_new_token_before_the_old_one_expires() {
    let mut config = Config::in_memory().with_queue("queue".parse().unwrap(), QueueSettings::default());
    config.accept_jwt = true;
    if an_emulated_queue("").await.is_none() {
        return;
    }
    let broker = emulated(config).await;
    let identity = Arc::new(Identity::default());
    let mut settings = broker.settings.clone();
    settings.credential = Credential::Token(identity.clone());
    let client = Client::new(settings);
    let receiver = client.receiver(&broker.queue, 1);
    send_one(&client, &broker.queue, "early").await;
    drain(&receiver, 1).await;

    within(async {
        while identity.asked.load(Ordering::SeqCst) < 3 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;

    send_one(&client, &broker.queue, "late").await;
    assert_eq!(recv(&receiver).await.message_id, "late");
    assert!(client.health().last_error.is_none());
}

#[tokio::test]
async fn token_refused_for_a_passing_reason_is_put_again() {
    let Some(broker) = an_emulated_queue("").await else {
        return;
    };
    broker.emulator().set_broker_faults(BrokerFaults {
        refuse_tokens: 2,
        token_status: 500,
        ..BrokerFaults::default()
    });
    let client = broker.client();

    send_one(&client, &broker.queue, "m").await;

    assert_eq!(drain(&client.receiver(&broker.queue, 1), 1).await, ["m"]);
}
