//! A container for each test, writers with defaults, and plain curl.

use std::num::NonZeroUsize;
use std::process::Command;

use blob::{BlobConfig, BlobStore, BlobWriter, Commit, Credential, Metadata, RetryProfile, WriterOptions};
use futures::TryStreamExt as _;
use uuid::Uuid;

pub const KIB: usize = 1024;

/// A configuration with a container of its own.
pub fn config(connection_string: &str) -> BlobConfig {
    BlobConfig {
        retry: RetryProfile::Patient,
        ..BlobConfig::new(
            Credential::ConnectionString(connection_string.into()),
            format!("t-{}", Uuid::new_v4().simple()),
        )
    }
}

/// An empty container in the storage account for tests.
pub async fn a_container() -> BlobStore {
    let store = BlobStore::new(config(&azurite::connection_string().unwrap())).unwrap();
    store.ensure_container().await.unwrap();
    store
}

/// A writer of small blocks, so that little content makes many.
pub fn a_writer(store: &BlobStore, name: &str, attempt: u32) -> BlobWriter {
    store.writer(name, small_blocks(attempt))
}

pub fn small_blocks(attempt: u32) -> WriterOptions {
    WriterOptions {
        block_bytes: NonZeroUsize::new(64 * KIB).unwrap(),
        ..WriterOptions::new(attempt, "text/csv; charset=utf-8")
    }
}

/// Metadata that tells attempts apart.
pub fn of_attempt(attempt: u32) -> Metadata {
    let mut metadata = Metadata::default();
    metadata.insert("attempt", attempt.to_string()).unwrap();
    metadata
}

/// Content that differs in every place, so that lost or exchanged blocks show.
pub fn content(bytes: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut content = Vec::with_capacity(bytes + 8);
    while content.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        content.extend_from_slice(&state.to_le_bytes());
    }
    content.truncate(bytes);
    content
}

/// Writes a whole blob as attempt 1.
pub async fn write(store: &BlobStore, name: &str, content: &[u8]) {
    let mut writer = a_writer(store, name, 1);
    writer.write(content).await.unwrap();
    let commit = writer.commit(of_attempt(1)).await.unwrap();
    assert!(matches!(commit, Commit::Created(_)), "{commit:?}");
}

/// The blob's stored bytes.
pub async fn read(store: &BlobStore, name: &str) -> Vec<u8> {
    let content = store.read(name).await.unwrap().expect("the blob is there");
    let parts: Vec<_> = content.bytes.try_collect().await.unwrap();
    parts.concat()
}

/// What curl got.
pub struct Answer {
    pub status: u16,
    pub headers: String,
    pub body: Vec<u8>,
}

/// Plain curl, as a reader would use it.
pub fn curl(arguments: &[&str]) -> Answer {
    let folder = tempfile::tempdir().unwrap();
    let (body, headers) = (folder.path().join("body"), folder.path().join("headers"));
    let output = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--max-time",
            "30",
            "--write-out",
            "%{http_code}",
            "--output",
        ])
        .arg(&body)
        .arg("--dump-header")
        .arg(&headers)
        .args(arguments)
        .output()
        .expect("curl runs");
    assert!(
        output.status.success(),
        "curl: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Answer {
        status: String::from_utf8(output.stdout).unwrap().parse().unwrap(),
        headers: std::fs::read_to_string(headers).unwrap().to_ascii_lowercase(),
        body: std::fs::read(body).unwrap_or_default(),
    }
}
