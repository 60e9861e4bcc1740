//! The writer: content, size, encoding, and what an unfinished one leaves.

use std::num::NonZeroUsize;

use blob::{Commit, Error, Refusal, WriterOptions};
use futures::TryStreamExt as _;
use rstest::rstest;

use crate::support::{KIB, a_container, a_writer, content, of_attempt, read, small_blocks};

#[rstest]
#[case::nothing(0)]
#[case::one_byte(1)]
#[case::a_block_exactly(64 * KIB)]
#[case::a_block_and_a_byte(64 * KIB + 1)]
#[case::many_blocks(40 * 64 * KIB + 17)]
#[tokio::test]
async fn what_is_written_in_pieces_reads_back_whole(#[case] bytes: usize) {
    let store = a_container().await;
    let content = content(bytes);
    let mut writer = a_writer(&store, "r.csv", 1);
    for piece in content.chunks(10_007) {
        writer.write(piece).await.unwrap();
    }
    assert_eq!(writer.bytes_written(), bytes as u64);
    let Commit::Created(facts) = writer.commit(of_attempt(1)).await.unwrap() else {
        panic!("nothing of that name was there before");
    };

    assert_eq!(facts.bytes, bytes as u64);
    assert_eq!(facts.content_type.as_deref(), Some("text/csv; charset=utf-8"));
    assert_eq!(facts.metadata, of_attempt(1));
    assert_eq!(store.facts("r.csv").await.unwrap(), Some(facts));
    assert!(read(&store, "r.csv").await == content, "the content differs");
}

#[tokio::test]
async fn blocks_of_the_default_size_read_back_whole() {
    let store = a_container().await;
    let content = content(20 * KIB * KIB);
    let mut writer = store.writer("r.csv", WriterOptions::new(1, "text/csv"));
    writer.write(&content).await.unwrap();
    writer.commit(of_attempt(1)).await.unwrap();
    assert!(read(&store, "r.csv").await == content, "the content differs");
}

#[tokio::test]
async fn an_encoded_blob_is_neither_packed_nor_unpacked_on_its_way() {
    let store = a_container().await;
    let options = WriterOptions {
        content_encoding: Some("gzip".into()),
        content_disposition: Some("attachment; filename=\"r.csv\"".into()),
        ..small_blocks(1)
    };
    // no gzip at all: whoever unpacked it would fail
    let mut writer = store.writer("r.csv.gz", options);
    writer.write(b"not gzip").await.unwrap();
    let Commit::Created(facts) = writer.commit(of_attempt(1)).await.unwrap() else {
        panic!("nothing of that name was there before");
    };
    assert_eq!(facts.content_encoding.as_deref(), Some("gzip"));
    assert_eq!(read(&store, "r.csv.gz").await, b"not gzip");
}

#[tokio::test]
async fn an_upload_that_is_given_up_leaves_nothing_visible() {
    let store = a_container().await;
    let mut writer = a_writer(&store, "r.csv", 1);
    writer.write(&content(10 * 64 * KIB)).await.unwrap();
    drop(writer);

    assert_eq!(store.facts("r.csv").await.unwrap(), None);
    assert!(store.read("r.csv").await.unwrap().is_none());
    let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
    assert_eq!(listed, []);
}

#[tokio::test]
async fn more_than_the_blocks_hold_is_a_clear_error_and_leaves_nothing_visible() {
    let store = a_container().await;
    let options = WriterOptions {
        blocks_max: 2,
        block_bytes: NonZeroUsize::new(10).unwrap(),
        ..small_blocks(1)
    };
    let mut writer = store.writer("r.csv", options);
    writer.write(&content(20)).await.unwrap();
    let error = writer.write(b"x").await.unwrap_err();
    assert!(
        matches!(error, Error::TooLarge { limit_bytes: 20, .. }),
        "{error}"
    );
    assert_eq!(error.refusal(), Refusal::Permanent);
    drop(writer);
    assert_eq!(store.facts("r.csv").await.unwrap(), None);
}
