//! Whole files, byte for byte, one for each parameter. Review a change as you would one of the schema.

use std::io::Read as _;

use serde_json::{Value, json};

use crate::support::World;

macro_rules! golden {
    ($($name:ident: $parameters:tt;)+) => {
        $(
            #[tokio::test]
            async fn $name() {
                let world = World::with_catalogue().await;
                let parameters: Value = json!($parameters);
                insta::assert_binary_snapshot!(".csv", world.exported(parameters).await);
            }
        )+
    };
}

golden! {
    with_defaults: {};
    // NULL times count only without a window; the end itself is outside of it
    from_and_to: {"from": "2026-01-10T00:03:00Z", "to": "2026-03-01T01:01:00+01:00"};
    from_alone: {"from": "2026-03-01T00:00:00Z"};
    of_one_genre: {"genre": "Jazz"};
    of_an_unknown_genre_there_is_the_header_alone: {"genre": "jazz"};
    // C is still that of the whole window
    of_albums_with_three_ratings: {"minRatings": 3};
    with_unrated_albums: {"minRatings": 0};
    the_first_three: {"limit": 3};
    with_no_prior_the_plain_mean: {"priorWeight": 0, "minRatings": 0};
    with_a_heavy_prior: {"priorWeight": 100000};
    exact_where_no_spreadsheet_reads: {"spreadsheetSafe": false};
}

#[tokio::test]
async fn of_an_empty_catalogue_there_is_the_header_alone() {
    let world = World::new().await;
    insta::assert_binary_snapshot!(".csv", world.exported(json!({"minRatings": 0})).await);
}

#[tokio::test]
async fn of_a_catalogue_without_ratings_every_score_is_three() {
    let world = World::with_catalogue().await;
    world.sql("DELETE FROM ratings").await;
    let file = String::from_utf8(world.exported(json!({"minRatings": 0})).await).unwrap();
    let mut reader = csv::Reader::from_reader(file.as_bytes());
    let scores: Vec<String> = reader.records().map(|row| row.unwrap()[9].to_owned()).collect();
    assert_eq!(scores, vec!["3.0000"; 10]);
}

#[tokio::test]
async fn gzip_holds_the_same_file() {
    let world = World::with_catalogue().await;
    let plain = world.exported(json!({})).await;
    let id = world.a_report(json!({"compression": "gzip"})).await;
    world.export(id).await.unwrap();

    let artifact = world.artifact(id).await;
    assert_eq!(artifact.blob.as_str(), format!("{id}.csv.gz"));
    assert_eq!(artifact.content_type, "application/gzip");
    let packed = world.bytes(artifact.blob.as_str()).await;
    assert_eq!(artifact.bytes, packed.len() as u64);
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(packed.as_slice())
        .read_to_end(&mut unpacked)
        .unwrap();
    assert!(unpacked == plain, "the unpacked file differs from the plain one");
    let facts = world.store.facts(artifact.blob.as_str()).await.unwrap().unwrap();
    assert_eq!(
        facts.content_encoding, None,
        "a reader must get the bytes that size and sum tell of"
    );
}
