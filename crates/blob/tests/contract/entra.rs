//! Login by Entra ID, and URLs signed by a user delegation key: on an Azurite that takes tokens over https.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azurite::{Azurite, Tls};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use blob::{BlobConfig, BlobStore, Credential};
use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::support::{curl, read, write};

const MINUTE: Duration = Duration::from_secs(60);

/// An account that takes tokens, with the authority to trust for it.
struct Account {
    azurite: Azurite,
    authority: PathBuf,
    _folder: TempDir,
}

impl Account {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let tls = Tls {
            certificate: folder.path().join("cert.pem"),
            key: folder.path().join("key.pem"),
        };
        std::fs::write(&tls.certificate, made.cert.pem()).unwrap();
        std::fs::write(&tls.key, made.signing_key.serialize_pem()).unwrap();
        Self {
            azurite: Azurite::start_with_tokens(&tls).unwrap(),
            authority: tls.certificate,
            _folder: folder,
        }
    }

    fn config(&self, credential: Arc<dyn TokenCredential>) -> BlobConfig {
        let endpoint = self.azurite.endpoint().parse().unwrap();
        let container = format!("t-{}", Uuid::new_v4().simple());
        BlobConfig {
            extra_authorities: Some(std::fs::read(&self.authority).unwrap()),
            ..BlobConfig::new(Credential::Token { endpoint, credential }, container)
        }
    }

    async fn a_container(&self) -> BlobStore {
        let store = BlobStore::new(self.config(Arc::new(Unsigned {
            issuer: "https://sts.windows.net/",
        })))
        .unwrap();
        store.ensure_container().await.unwrap();
        store
    }

    fn curl(&self, arguments: &[&str]) -> crate::support::Answer {
        let mut all = vec!["--cacert", self.authority.to_str().unwrap()];
        all.extend(arguments);
        curl(&all)
    }
}

/// Azurite looks at a token's claims and not at its signature.
#[derive(Debug)]
struct Unsigned {
    issuer: &'static str,
}

#[async_trait::async_trait]
impl TokenCredential for Unsigned {
    async fn get_token(
        &self,
        scopes: &[&str],
        _: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        assert_eq!(scopes, ["https://storage.azure.com/.default"]);
        let now = OffsetDateTime::now_utc();
        let claims = serde_json::json!({
            "aud": "https://storage.azure.com",
            "iss": format!("{}{}/", self.issuer, Uuid::nil()),
            "iat": now.unix_timestamp(),
            "nbf": now.unix_timestamp() - 60,
            "exp": now.unix_timestamp() + 3600,
            "oid": Uuid::nil(),
            "tid": Uuid::nil(),
        });
        let parts = [r#"{"alg":"none","typ":"JWT"}"#, &claims.to_string(), "signature"];
        let token = parts.map(|part| BASE64_URL_SAFE_NO_PAD.encode(part)).join(".");
        Ok(AccessToken::new(token, now + Duration::from_secs(3600)))
    }
}

#[tokio::test]
async fn a_blob_is_written_found_and_deleted_with_a_token() {
    let account = Account::start();
    let store = account.a_container().await;
    write(&store, "r.csv", b"by token").await;
    assert_eq!(read(&store, "r.csv").await, b"by token");
    assert!(store.delete("r.csv").await.unwrap());
}

#[tokio::test]
async fn curl_downloads_by_a_delegated_url_and_can_do_nothing_else() {
    let account = Account::start();
    let store = account.a_container().await;
    write(&store, "r.csv", b"by token").await;
    write(&store, "other.csv", b"y").await;
    let disposition = "attachment; filename=\"popularity.csv\"";
    let url = store
        .signed_url("r.csv", Timestamp::now(), MINUTE, Some(disposition))
        .await
        .unwrap();

    let answer = account.curl(&[url.expose()]);
    assert_eq!(
        (answer.status, answer.body.as_slice()),
        (200, b"by token".as_slice())
    );
    assert!(
        answer
            .headers
            .contains(&format!("content-disposition: {disposition}")),
        "{}",
        answer.headers
    );

    let other = url.expose().replace("/r.csv?", "/other.csv?");
    assert_eq!(account.curl(&[&other]).status, 403);
    let write = [
        "-X",
        "PUT",
        "-H",
        "x-ms-blob-type: BlockBlob",
        "--data-binary",
        "z",
        url.expose(),
    ];
    assert_eq!(account.curl(&write).status, 403);
    assert_eq!(account.curl(&["-X", "DELETE", url.expose()]).status, 403);

    let past = Timestamp::now() - SignedDuration::from_secs(61);
    let ended = store.signed_url("r.csv", past, MINUTE, None).await.unwrap();
    assert_eq!(account.curl(&[ended.expose()]).status, 403);
}

#[tokio::test]
async fn a_key_signs_many_urls_and_is_renewed_before_it_would_end_one() {
    let account = Account::start();
    let store = account.a_container().await;
    let began = Timestamp::now();
    let mut ends = Vec::new();
    for minutes in [0, 60, 344, 345] {
        let now = began + SignedDuration::from_mins(minutes);
        let url = store.signed_url("r.csv", now, MINUTE, None).await.unwrap();
        let (_, rest) = url
            .expose()
            .split_once("ske=")
            .expect("the key's end is in the URL");
        ends.push(rest.split('&').next().unwrap().to_owned());
    }
    assert_eq!(ends[0], ends[1]);
    assert_eq!(
        ends[0], ends[2],
        "5:44 h on, with a URL of a minute, the key of 6 h has its 15 minutes left"
    );
    assert_ne!(ends[0], ends[3], "a minute later it has not");
}

#[tokio::test]
async fn a_token_that_is_not_accepted_is_refused_for_good() {
    let account = Account::start();
    let config = account.config(Arc::new(Unsigned {
        issuer: "https://login.example/",
    }));
    let store = BlobStore::new(config).unwrap();
    let error = store.ensure_container().await.unwrap_err();
    assert_eq!(error.failure().unwrap().status(), Some(403));
    assert_eq!(error.refusal(), blob::Refusal::Permanent);
    let error = store
        .signed_url("r.csv", Timestamp::now(), MINUTE, None)
        .await
        .unwrap_err();
    assert!(matches!(error, blob::Error::DelegationKey { .. }), "{error}");
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_not_accepted() {
    let account = Account::start();
    let mut config = account.config(Arc::new(Unsigned {
        issuer: "https://sts.windows.net/",
    }));
    config.extra_authorities = None;
    config.retry = blob::RetryProfile::Interactive;
    let store = BlobStore::new(config).unwrap();
    let error = store.facts("r.csv").await.unwrap_err();
    let mut text = String::new();
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = cause {
        text.push_str(&error.to_string());
        cause = error.source();
    }
    assert!(text.contains("invalid peer certificate"), "{text}");
}

#[test]
fn a_token_is_never_sent_over_http() {
    let credential = Credential::Token {
        endpoint: "http://acct.blob.core.windows.net".parse().unwrap(),
        credential: Arc::new(Unsigned {
            issuer: "https://sts.windows.net/",
        }),
    };
    let error = BlobStore::new(BlobConfig::new(credential, "reports"))
        .map(drop)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("a token is sent there, so it must be https"),
        "{error}"
    );
}
