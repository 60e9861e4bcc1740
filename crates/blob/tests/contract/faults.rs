//! Storage that refuses, is away, or loses an answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use blob::{BlobStore, ConfigurationError, Refusal, RetryProfile};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{a_container, a_writer, config, of_attempt};

/// Between client and service: passes everything on, but loses the answer to the first commit.
pub struct LostAnswer {
    address: String,
    service: String,
    lost: Arc<AtomicU32>,
}

impl LostAnswer {
    pub async fn to(endpoint: &str) -> Self {
        let service = endpoint
            .trim_start_matches("http://")
            .split('/')
            .next()
            .unwrap()
            .to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let lost = Arc::new(AtomicU32::new(0));
        let (upstream, counter) = (service.clone(), Arc::clone(&lost));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass_on(client, upstream.clone(), Arc::clone(&counter)));
            }
        });
        Self {
            address,
            service,
            lost,
        }
    }

    pub fn rewritten(&self, connection_string: &str) -> String {
        connection_string.replace(&self.service, &self.address)
    }

    pub fn lost(&self) -> u32 {
        self.lost.load(Ordering::SeqCst)
    }
}

/// One connection, as long as both sides keep it.
async fn pass_on(mut client: TcpStream, service: String, lost: Arc<AtomicU32>) {
    let mut server = TcpStream::connect(service).await.unwrap();
    let (mut question, mut answer) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let mut losing = false;
    loop {
        tokio::select! {
            read = client.read(&mut question) => match read {
                Ok(n) if n > 0 => {
                    let commits = question[..n].windows(14).any(|part| part == b"comp=blocklist");
                    losing |= commits && lost.load(Ordering::SeqCst) == 0;
                    server.write_all(&question[..n]).await.unwrap();
                }
                _ => return,
            },
            read = server.read(&mut answer) => match read {
                Ok(n) if n > 0 && !losing => client.write_all(&answer[..n]).await.unwrap(),
                Ok(n) if n > 0 => {
                    lost.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                _ => return,
            },
        }
    }
}

#[tokio::test]
async fn a_wrong_key_is_refused_for_good_and_no_text_shows_it() {
    let connection_string = azurite::connection_string().unwrap();
    let (before, _) = connection_string.split_once("AccountKey=").unwrap();
    let endpoint = connection_string
        .split(';')
        .find(|part| part.starts_with("BlobEndpoint="))
        .unwrap();
    let account = connection_string
        .split(';')
        .find(|part| part.starts_with("AccountName="))
        .unwrap();
    assert!(!before.is_empty());
    let wrong = format!("{account};AccountKey=d3JvbmdrZXl3cm9uZ2tleQ==;{endpoint}");
    let store = BlobStore::new(config(&wrong)).unwrap();

    let mut writer = a_writer(&store, "r.csv", 1);
    writer.write(b"x").await.unwrap();
    let written = writer.commit(of_attempt(1)).await.unwrap_err();
    for error in [
        store.ensure_container().await.unwrap_err(),
        store.facts("r.csv").await.unwrap_err(),
        written,
    ] {
        assert_eq!(error.refusal(), Refusal::Permanent, "{error}");
        assert_eq!(error.failure().unwrap().status(), Some(403));
        let text = format!("{error} {:?} {store:?}", error.failure().unwrap().to_string());
        assert!(!text.contains("d3Jvbmd") && !text.contains('\n'), "{text}");
    }
}

#[tokio::test]
async fn a_missing_container_is_refused_for_good_when_written_to() {
    let store = BlobStore::new(config(&azurite::connection_string().unwrap())).unwrap();
    let mut writer = a_writer(&store, "r.csv", 1);
    writer.write(b"x").await.unwrap();
    let error = writer.commit(of_attempt(1)).await.unwrap_err();
    assert_eq!(error.failure().unwrap().code(), Some("ContainerNotFound"));
    assert_eq!(error.refusal(), Refusal::Permanent);
    assert!(
        !store.delete("r.csv").await.unwrap(),
        "where there is no container there is no blob"
    );
}

/// An address where nothing answers: the listener is there and never accepts.
async fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

fn at(address: &str) -> String {
    format!("AccountName=acct;AccountKey=a2V5;BlobEndpoint=http://{address}/acct")
}

#[tokio::test]
async fn a_person_does_not_wait_for_storage_that_never_answers() {
    let (_listener, address) = silent().await;
    let mut config = config(&at(&address));
    config.retry = RetryProfile::Interactive;
    let store = BlobStore::new(config).unwrap();
    let began = Instant::now();
    let error = store.facts("r.csv").await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(7), "{:?}", began.elapsed());
    assert_eq!(error.refusal(), Refusal::Temporary);
    assert_eq!(error.failure().unwrap().to_string(), "no answer within 5 seconds");
}

#[tokio::test]
async fn a_person_does_not_wait_for_storage_that_is_down() {
    let (listener, address) = silent().await;
    drop(listener);
    let mut config = config(&at(&address));
    config.retry = RetryProfile::Interactive;
    let store = BlobStore::new(config).unwrap();
    let began = Instant::now();
    let error = store.ensure_container().await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(7), "{:?}", began.elapsed());
    assert_eq!(error.refusal(), Refusal::Temporary);
}

#[tokio::test]
async fn a_block_that_cannot_be_sent_is_an_error_of_the_writer() {
    let (listener, address) = silent().await;
    drop(listener);
    let mut config = config(&at(&address));
    config.retry = RetryProfile::Interactive;
    let store = BlobStore::new(config).unwrap();
    let mut writer = a_writer(&store, "r.csv", 1);
    writer.write(b"x").await.unwrap();
    let error = writer.commit(of_attempt(1)).await.unwrap_err();
    assert!(
        error.to_string().starts_with("failed to upload block 0"),
        "{error}"
    );
    assert_eq!(error.refusal(), Refusal::Temporary);
}

#[tokio::test]
async fn a_blob_that_is_gone_while_it_is_read_ends_the_stream_with_an_error() {
    use futures::StreamExt as _;
    let store = a_container().await;
    let mut writer = a_writer(&store, "r.csv", 1);
    // more than one part of a download, so that a second request is needed
    writer
        .write(&crate::support::content(9 * 1024 * 1024))
        .await
        .unwrap();
    writer.commit(of_attempt(1)).await.unwrap();

    let mut content = store.read("r.csv").await.unwrap().unwrap();
    assert_eq!(content.facts.bytes, 9 * 1024 * 1024);
    assert!(store.delete("r.csv").await.unwrap());
    let mut last = None;
    while let Some(part) = content.bytes.next().await {
        last = Some(part);
    }
    let error = last.unwrap().unwrap_err();
    assert!(error.to_string().starts_with("failed to read"), "{error}");
}

/// The SDK's own client panics then. The variables are the process's, so this runs as another process.
#[test]
fn without_ca_certificates_https_is_an_error_and_http_works() {
    const MARK: &str = "BLOB_TEST_WITHOUT_CERTIFICATES";
    let https = || BlobStore::new(config("AccountName=acct;AccountKey=a2V5"));
    if std::env::var_os(MARK).is_some() {
        let error = https().map(drop).unwrap_err();
        assert!(matches!(error, ConfigurationError::HttpClient(_)), "{error}");
        assert!(BlobStore::new(config(&at("127.0.0.1:1"))).is_ok());
        return;
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "faults::without_ca_certificates_https_is_an_error_and_http_works",
            "--nocapture",
        ])
        .env(MARK, "1")
        .env("SSL_CERT_FILE", "/nonexistent")
        .env("SSL_CERT_DIR", "/nonexistent")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[rstest::rstest]
#[case::short("ab")]
#[case::upper_case("Reports")]
#[case::hyphen_last("reports-")]
#[case::two_hyphens("re--ports")]
#[case::slash("re/ports")]
fn a_container_name_that_azure_refuses_is_refused_at_once(#[case] name: &str) {
    let mut config = config("UseDevelopmentStorage=true");
    config.container = name.to_owned();
    let error = BlobStore::new(config).map(drop).unwrap_err();
    assert!(matches!(error, ConfigurationError::ContainerName(_)), "{error}");
}
