//! Blob Storage by tokens, on an Azurite that looks at their claims.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use azurite::Azurite;
use blob::{BlobConfig, BlobStore, Commit, Credential, Metadata, WriterOptions};
use jiff::{SignedDuration, Timestamp};

use crate::support::{STORAGE, World, a_world};

const MINUTE: Duration = Duration::from_secs(60);

fn an_account(world: &World) -> (Azurite, BlobStore) {
    let azurite = Azurite::start_with_tokens(&azurite::Tls {
        certificate: world.tls.certificate().to_owned(),
        key: world.tls.key().to_owned(),
    })
    .unwrap();
    let credential = Credential::Token {
        endpoint: azurite.endpoint().parse().unwrap(),
        credential: Arc::new(world.identity()),
    };
    let config = BlobConfig {
        extra_authorities: Some(world.certificate()),
        ..BlobConfig::new(credential, "reports")
    };
    (azurite, BlobStore::new(config).unwrap())
}

#[tokio::test]
async fn an_upload_goes_on_over_rotations() {
    let world = a_world(Duration::from_secs(2)).await;
    let (_azurite, store) = an_account(&world);
    store.ensure_container().await.unwrap();
    let options = WriterOptions {
        block_bytes: NonZeroUsize::new(64 * 1024).unwrap(),
        ..WriterOptions::new(1, "text/csv; charset=utf-8")
    };
    let mut writer = store.writer("r.csv", options);
    let (began, mut written) = (Instant::now(), 0);

    while world.entra.issued(world.client(), STORAGE) < 4 {
        assert!(began.elapsed() < Duration::from_secs(30));
        writer.write(&[b'x'; 64 * 1024]).await.unwrap();
        written += 64 * 1024;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    let Commit::Created(facts) = writer.commit(Metadata::default()).await.unwrap() else {
        panic!("the blob is new");
    };
    assert_eq!(facts.bytes, written);
}

#[tokio::test]
async fn a_link_and_the_key_that_signs_it_outlive_the_token() {
    let world = a_world(Duration::from_secs(1)).await;
    let (_azurite, store) = an_account(&world);
    store.ensure_container().await.unwrap();
    let mut writer = store.writer("r.csv", WriterOptions::new(1, "text/csv"));
    writer.write(b"rows").await.unwrap();
    writer.commit(Metadata::default()).await.unwrap();
    let link = async |at: Timestamp| store.signed_url("r.csv", at, MINUTE, None).await.unwrap();
    let now = Timestamp::now();
    let first = link(now).await;
    let issued = world.entra.issued(world.client(), STORAGE);
    tokio::time::sleep(Duration::from_millis(1_200)).await;

    let again = link(now).await;
    let client = reqwest::Client::builder()
        .tls_certs_only(reqwest::tls::Certificate::from_pem_bundle(&world.certificate()).unwrap())
        .build()
        .unwrap();
    for url in [&first, &again] {
        let answer = client.get(url.expose()).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.text().await.unwrap(), "rows");
    }
    assert_eq!(
        first.expose(),
        again.expose(),
        "one key signs both, without a token"
    );
    assert_eq!(world.entra.issued(world.client(), STORAGE), issued);

    let later = link(now + SignedDuration::from_hours(6)).await;
    assert_ne!(
        key_end(first.expose()),
        key_end(later.expose()),
        "another key, by another token"
    );
    assert_eq!(world.entra.issued(world.client(), STORAGE), issued + 1);
}

fn key_end(url: &str) -> &str {
    let (_, rest) = url.split_once("ske=").expect("the key's end is in the URL");
    rest.split('&').next().unwrap_or(rest)
}
