//! URLs signed by the account key, with plain curl.

use std::time::Duration;

use blob::{BlobStore, Error, URL_TTL_MAX};
use jiff::{SignedDuration, Timestamp};
use rstest::rstest;

use crate::support::{KIB, a_container, config, content, curl, write};

const MINUTE: Duration = Duration::from_secs(60);

async fn url(store: &BlobStore, name: &str) -> String {
    let url = store
        .signed_url(name, Timestamp::now(), MINUTE, None)
        .await
        .unwrap();
    url.expose().to_owned()
}

#[tokio::test]
async fn curl_downloads_the_whole_blob() {
    let store = a_container().await;
    let content = content(5 * 64 * KIB);
    write(&store, "r.csv", &content).await;
    let disposition = "attachment; filename=\"popularity 1.csv\"";
    let url = store
        .signed_url("r.csv", Timestamp::now(), MINUTE, Some(disposition))
        .await
        .unwrap();

    let answer = curl(&[url.expose()]);

    assert_eq!(answer.status, 200);
    assert!(answer.body == content, "the content differs");
    assert!(
        answer
            .headers
            .contains(&format!("content-disposition: {disposition}")),
        "{}",
        answer.headers
    );
    assert!(
        answer.headers.contains("content-type: text/csv; charset=utf-8"),
        "{}",
        answer.headers
    );
}

#[rstest]
#[case::another_blob("GET", "/r.csv?", "/other.csv?")]
#[case::the_list("GET", "/r.csv?", "?restype=container&comp=list&")]
#[case::overwriting("PUT", "/r.csv?", "/r.csv?")]
#[case::writing_another("PUT", "/r.csv?", "/new.csv?")]
#[case::staging_a_block("PUT", "/r.csv?", "/r.csv?comp=block&blockid=YQ%3D%3D&")]
#[case::metadata("PUT", "/r.csv?", "/r.csv?comp=metadata&")]
#[case::deleting("DELETE", "/r.csv?", "/r.csv?")]
#[tokio::test]
async fn nothing_else_is_allowed(#[case] method: &str, #[case] from: &str, #[case] to: &str) {
    let store = a_container().await;
    write(&store, "r.csv", b"x").await;
    write(&store, "other.csv", b"y").await;
    let url = url(&store, "r.csv").await.replace(from, to);
    let mut arguments = vec!["-X", method, "-H", "x-ms-blob-type: BlockBlob", url.as_str()];
    if method == "PUT" {
        arguments.extend(["--data-binary", "z"]);
    }
    assert_eq!(curl(&arguments).status, 403);
    assert_eq!(crate::support::read(&store, "r.csv").await, b"x");
}

#[tokio::test]
async fn a_url_is_refused_after_its_end() {
    let store = a_container().await;
    write(&store, "r.csv", b"x").await;
    let past = Timestamp::now() - SignedDuration::from_secs(61);
    let ended = store.signed_url("r.csv", past, MINUTE, None).await.unwrap();
    assert!(ended.expires_at() < Timestamp::now());
    assert_eq!(curl(&[ended.expose()]).status, 403);

    // and the end that is in it cannot be moved
    let end = format!("se={}", ended.expires_at().to_string().replace(':', "%3A"));
    assert!(ended.expose().contains(&end), "whole seconds, UTC");
    let moved = ended.expose().replace(&end, "se=2100-01-01T00%3A00%3A00Z");
    assert_eq!(curl(&[&moved]).status, 403);
}

#[tokio::test]
async fn a_url_of_a_blob_that_is_not_committed_finds_nothing() {
    let store = a_container().await;
    let mut writer = crate::support::a_writer(&store, "r.csv", 1);
    writer.write(&content(10 * 64 * KIB)).await.unwrap();
    assert_eq!(curl(&[&url(&store, "r.csv").await]).status, 404);
}

#[rstest]
#[case::space("a b.csv")]
#[case::plus("a+b.csv")]
#[case::percent("100%.csv")]
#[case::umlaut("Bjørk ü.csv")]
#[tokio::test]
async fn names_with_special_characters_are_signed_as_they_are(#[case] name: &str) {
    let store = a_container().await;
    write(&store, name, b"x").await;
    let answer = curl(&[&url(&store, name).await]);
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"x".as_slice()));
}

#[tokio::test]
async fn a_url_is_on_the_public_endpoint() {
    let connection_string = azurite::connection_string().unwrap();
    let mut config = config(&connection_string);
    let private = BlobStore::new(config.clone()).unwrap();
    let mut public = private.public_url("r.csv");
    public.set_host(Some("localhost")).unwrap();
    public.path_segments_mut().unwrap().pop().pop();
    config.public_endpoint = Some(public);
    let store = BlobStore::new(config).unwrap();
    store.ensure_container().await.unwrap();
    write(&store, "r.csv", b"x").await;

    let url = url(&store, "r.csv").await;
    assert!(url.starts_with("http://localhost:"), "{url}");
    assert_eq!(curl(&[&url]).status, 200);
}

#[tokio::test]
async fn a_url_that_would_live_too_long_is_refused() {
    let store = a_container().await;
    let ttl = URL_TTL_MAX + Duration::from_secs(1);
    let error = store
        .signed_url("r.csv", Timestamp::now(), ttl, None)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::UrlTtl { .. }), "{error}");
}
