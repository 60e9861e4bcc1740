//! Facts, lists and deletion.

use blob::Metadata;
use futures::TryStreamExt as _;

use crate::support::{KIB, a_container, a_writer, content, of_attempt, write};

#[tokio::test]
async fn a_container_is_made_once_however_often_it_is_asked_for() {
    let store = a_container().await;
    let (one, two) = tokio::join!(store.ensure_container(), store.ensure_container());
    one.unwrap();
    two.unwrap();
}

#[tokio::test]
async fn metadata_comes_back_as_it_was_given() {
    let store = a_container().await;
    let mut metadata = Metadata::default();
    metadata
        .insert("reportid", "0190b7c4-0000-7000-8000-000000000001")
        .unwrap();
    metadata
        .insert("parameters", r#"{"genre":"Bossa nova","priorWeight":10}"#)
        .unwrap();
    metadata
        .insert("data_as_of", "2026-11-24T09:55:38.123456Z")
        .unwrap();
    let mut writer = a_writer(&store, "r.csv", 1);
    writer.write(b"x").await.unwrap();
    writer.commit(metadata.clone()).await.unwrap();
    assert_eq!(store.facts("r.csv").await.unwrap().unwrap().metadata, metadata);
    let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
    assert_eq!(listed[0].metadata, metadata);
}

#[tokio::test]
async fn a_list_has_the_committed_blobs_of_the_prefix_by_name() {
    let store = a_container().await;
    for name in ["b.csv", "a-2.csv", "a-1.csv"] {
        write(&store, name, name.as_bytes()).await;
    }
    let mut staged_only = a_writer(&store, "a-3.csv", 1);
    staged_only.write(&content(10 * 64 * KIB)).await.unwrap();

    let listed: Vec<_> = store.list(Some("a-")).try_collect().await.unwrap();
    let names: Vec<_> = listed.iter().map(|facts| facts.name.as_str()).collect();
    assert_eq!(names, ["a-1.csv", "a-2.csv"]);
    assert_eq!(Some(&listed[0]), store.facts("a-1.csv").await.unwrap().as_ref());
}

#[tokio::test]
async fn a_deleted_blob_is_gone_and_deleting_it_again_is_no_error() {
    let store = a_container().await;
    write(&store, "r.csv", b"x").await;
    assert!(store.delete("r.csv").await.unwrap());
    assert_eq!(store.facts("r.csv").await.unwrap(), None);
    assert!(!store.delete("r.csv").await.unwrap());
}

#[tokio::test]
async fn a_name_with_staged_blocks_alone_is_no_blob_to_delete() {
    let store = a_container().await;
    let mut writer = a_writer(&store, "r.csv", 1);
    writer.write(&content(10 * 64 * KIB)).await.unwrap();
    drop(writer);
    assert!(!store.delete("r.csv").await.unwrap());
}

#[tokio::test]
async fn a_name_can_be_written_again_after_its_blob_was_deleted() {
    let store = a_container().await;
    write(&store, "r.csv", b"one").await;
    assert!(store.delete("r.csv").await.unwrap());
    write(&store, "r.csv", b"two").await;
    assert_eq!(
        store.facts("r.csv").await.unwrap().unwrap().metadata,
        of_attempt(1)
    );
}
