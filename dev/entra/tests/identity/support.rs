//! A cluster that issues service accounts' tokens, the token endpoint, and an identity that uses both.

use std::path::PathBuf;
use std::time::Duration;

use entra::{AUDIENCE, Entra, Federation, Issued, Setup, SigningKey, Tls};
use futures::future::BoxFuture;
use identity::{Identity, Settings};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tempfile::TempDir;
use uuid::Uuid;

pub const STORAGE: &str = "https://storage.azure.com/.default";
const ISSUER: &str = "https://cluster.example/oidc";
pub const SUBJECT: &str = "system:serviceaccount:reports:exporter";

/// A token endpoint with one identity for each name that a test gives.
pub struct World {
    pub tls: Tls,
    pub entra: Entra,
    cluster: SigningKey,
    clients: Vec<Uuid>,
    folder: TempDir,
}

/// One identity, tokens of this lifetime, and nothing to do when one is issued.
pub async fn a_world(lifetime: Duration) -> World {
    a_world_of(1, lifetime, |_| Box::pin(async { Ok(()) })).await
}

pub async fn a_world_of<F>(identities: usize, lifetime: Duration, hook: F) -> World
where
    F: Fn(Issued) -> BoxFuture<'static, anyhow::Result<()>> + Send + Sync + 'static,
{
    let tls = Tls::new(&["127.0.0.1", "localhost"]).unwrap();
    let cluster = SigningKey::generate().unwrap();
    // the hook of some tests has to know them before the endpoint runs
    let clients: Vec<_> = (1..=identities).map(client).collect();
    let federations = clients.iter().map(|client_id| Federation {
        client_id: *client_id,
        issuer: ISSUER.to_owned(),
        subject: SUBJECT.to_owned(),
    });
    let setup = Setup {
        host: "127.0.0.1".to_owned(),
        federations: federations.collect(),
        cluster_keys: cluster.public().clone(),
        lifetime,
    };
    let entra = Entra::start(setup, &tls, hook).await.unwrap();
    let world = World {
        tls,
        entra,
        cluster,
        clients,
        folder: tempfile::tempdir().unwrap(),
    };
    world.write_token(&world.service_account_token(SUBJECT, AUDIENCE, 3_600));
    world
}

/// The client id of the n-th identity, from 1.
pub fn client(number: usize) -> Uuid {
    Uuid::from_u128(number as u128)
}

impl World {
    pub fn client(&self) -> Uuid {
        self.clients[0]
    }

    pub fn token_file(&self) -> PathBuf {
        self.folder.path().join("azure-identity-token")
    }

    /// As the kubelet writes it.
    pub fn write_token(&self, token: &str) {
        std::fs::write(self.token_file(), token).unwrap();
    }

    pub fn service_account_token(&self, subject: &str, audience: &str, seconds: i64) -> String {
        sign(&self.cluster, ISSUER, subject, audience, seconds)
    }

    pub fn certificate(&self) -> Vec<u8> {
        std::fs::read(self.tls.certificate()).unwrap()
    }

    pub fn settings(&self, client_id: Uuid) -> Settings {
        Settings {
            client_id: Some(client_id.to_string()),
            tenant_id: Some(self.entra.tenant().to_string()),
            token_file: Some(self.token_file()),
            authority_host: Some(self.entra.authority_host().unwrap()),
            patience: Duration::ZERO,
            extra_authorities: Some(self.certificate()),
        }
    }

    /// One that waits for nothing.
    pub fn identity(&self) -> Identity {
        Identity::new(&self.settings(self.client())).unwrap()
    }

    pub fn patient_identity(&self, patience: Duration) -> Identity {
        let settings = Settings {
            patience,
            ..self.settings(self.client())
        };
        Identity::new(&settings).unwrap()
    }
}

pub fn sign(key: &SigningKey, issuer: &str, subject: &str, audience: &str, seconds: i64) -> String {
    let now = Timestamp::now();
    let claims = json!({
        "iss": issuer,
        "sub": subject,
        "aud": [audience],
        "iat": now.as_second(),
        "exp": (now + SignedDuration::from_secs(seconds)).as_second(),
    });
    key.sign(&claims).unwrap()
}

/// Waits until it holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait)
        .await
        .unwrap_or_else(|_| panic!("not within 30 s: {what}"));
}

/// The error and all its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
