//! What one attempt, several at once, and one after another leave behind.

use blob::{Metadata, WriterOptions};
use domain::{Failure, FailureReason, Progress, State};
use exporter::{Error, Outcome};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use sqlx::AssertSqlSafe;
use tokio_util::sync::CancellationToken;

use crate::support::World;

fn hex(bytes: &[u8]) -> String {
    domain::Sha256::new(Sha256::digest(bytes).into()).to_string()
}

#[tokio::test]
async fn row_blob_and_metadata_agree_on_a_completed_file() {
    let world = World::with_catalogue().await;
    let before = Timestamp::now() - SignedDuration::from_secs(1);
    let id = world.a_report(json!({"genre": "Jazz"})).await;
    let outcome = world.export(id).await.unwrap();

    let artifact = world.artifact(id).await;
    assert_eq!(outcome, Outcome::Completed(artifact.clone()));
    let bytes = world.bytes(artifact.blob.as_str()).await;
    let facts = world.store.facts(artifact.blob.as_str()).await.unwrap().unwrap();
    assert_eq!(artifact.container, world.store.container());
    assert_eq!(artifact.blob.as_str(), format!("{id}.csv"));
    assert_eq!(artifact.rows, 2);
    assert_eq!(
        (artifact.bytes, facts.bytes),
        (bytes.len() as u64, bytes.len() as u64)
    );
    assert_eq!(artifact.sha256.to_string(), hex(&bytes));
    assert_eq!(artifact.schema, "popularity.v1");
    assert_eq!(
        Some(artifact.content_type.as_str()),
        facts.content_type.as_deref()
    );
    assert!(artifact.data_as_of > before && artifact.data_as_of < Timestamp::now());
    let expected = [
        ("attempt", "1".to_owned()),
        ("data_as_of", artifact.data_as_of.to_string()),
        ("reportid", id.to_string()),
        ("rows", "2".to_owned()),
        ("schema", "popularity.v1".to_owned()),
        ("sha256", hex(&bytes)),
    ];
    for (name, value) in expected {
        assert_eq!(facts.metadata.get(name), Some(value.as_str()), "{name}");
    }
    let parameters: serde_json::Value =
        serde_json::from_str(facts.metadata.get("parameters").unwrap()).unwrap();
    assert_eq!(
        parameters,
        json!({"genre": "Jazz", "minRatings": 1, "priorWeight": 10, "compression": "none", "spreadsheetSafe": true})
    );
}

#[tokio::test]
async fn a_run_after_the_end_changes_nothing() {
    let world = World::with_catalogue().await;
    let id = world.a_report(json!({})).await;
    world.export(id).await.unwrap();
    let (report, blobs) = (world.report(id).await, world.blobs().await);

    assert_eq!(
        world.export(id).await.unwrap(),
        Outcome::Superseded(State::Completed)
    );
    assert_eq!((world.report(id).await, world.blobs().await), (report, blobs));
}

#[tokio::test]
async fn two_exporters_at_once_make_one_file() {
    let world = World::with_catalogue().await;
    let id = world.a_report(json!({})).await;
    let outcomes = tokio::join!(world.export(id), world.export(id));

    let completed = [outcomes.0.unwrap(), outcomes.1.unwrap()]
        .into_iter()
        .filter(|outcome| matches!(outcome, Outcome::Completed(_)))
        .count();
    assert_eq!(completed, 1);
    let (artifact, blobs) = (world.artifact(id).await, world.blobs().await);
    assert_eq!(blobs.len(), 1);
    assert_eq!(
        blobs[0].metadata.get("sha256"),
        Some(artifact.sha256.to_string().as_str())
    );
    assert_eq!(
        hex(&world.bytes(&blobs[0].name).await),
        artifact.sha256.to_string()
    );
}

/// Puts a blob under the report's name, as an earlier attempt or a stranger would.
async fn put(world: &World, name: &str, content: &[u8], pairs: &[(&str, String)]) {
    let mut metadata = Metadata::default();
    for (name, value) in pairs {
        metadata.insert(*name, value.as_str()).unwrap();
    }
    let mut writer = world
        .store
        .writer(name, WriterOptions::new(77, "text/csv; charset=utf-8"));
    writer.write(content).await.unwrap();
    writer.commit(metadata).await.unwrap();
}

fn as_an_attempt(id: domain::ReportId, sha256: String) -> Vec<(&'static str, String)> {
    let parameters =
        json!({"minRatings": 1, "priorWeight": 10, "compression": "none", "spreadsheetSafe": true});
    vec![
        ("reportid", id.to_string()),
        ("attempt", "1".into()),
        ("schema", "popularity.v1".into()),
        ("parameters", parameters.to_string()),
        ("data_as_of", "2026-01-01T00:00:00Z".into()),
        ("rows", "41".into()),
        ("sha256", sha256),
    ]
}

#[tokio::test]
async fn a_whole_file_of_an_earlier_attempt_is_taken_over() {
    let world = World::with_catalogue().await;
    let id = world.a_report(json!({})).await;
    put(
        &world,
        &format!("{id}.csv"),
        b"earlier",
        &as_an_attempt(id, hex(b"earlier")),
    )
    .await;

    world.export(id).await.unwrap();

    let artifact = world.artifact(id).await;
    assert_eq!((artifact.rows, artifact.bytes), (41, 7));
    assert_eq!(artifact.data_as_of.to_string(), "2026-01-01T00:00:00Z");
    assert_eq!(world.bytes(artifact.blob.as_str()).await, b"earlier");
}

#[tokio::test]
async fn a_damaged_file_of_an_earlier_attempt_is_written_anew() {
    let world = World::with_catalogue().await;
    let id = world.a_report(json!({})).await;
    put(
        &world,
        &format!("{id}.csv"),
        b"damaged",
        &as_an_attempt(id, hex(b"earlier")),
    )
    .await;

    world.export(id).await.unwrap();

    let artifact = world.artifact(id).await;
    let bytes = world.bytes(artifact.blob.as_str()).await;
    assert_eq!(artifact.sha256.to_string(), hex(&bytes));
    assert!(bytes.starts_with(b"rank,"));
    assert_eq!(
        world.blobs().await[0].metadata.get("rows"),
        Some(artifact.rows.to_string().as_str())
    );
}

#[tokio::test]
async fn a_strangers_blob_is_left_alone_and_the_attempt_fails_for_good() {
    let world = World::with_catalogue().await;
    let id = world.a_report(json!({})).await;
    let name = format!("{id}.csv");
    put(&world, &name, b"a stranger's", &[]).await;

    let error = world.export(id).await.unwrap_err();

    assert!(matches!(error, Error::ForeignBlob(_)), "{error}");
    assert_eq!(error.exit_code(), 65);
    assert_eq!(error.failure().reason, FailureReason::StorageRejected);
    assert_eq!(world.bytes(&name).await, b"a stranger's");
    assert_eq!(
        world.report(id).await.state(),
        State::Processing,
        "to fail it is the operator's"
    );
}

/// Keeps the exporter from reading ratings until it is dropped or committed.
pub async fn ratings_locked(world: &World) -> sqlx::Transaction<'static, sqlx::Postgres> {
    let mut transaction = world.database.admin_pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE ratings IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *transaction)
        .await
        .unwrap();
    transaction
}

/// Until the exporter waits for the lock.
pub async fn waits_for_ratings(world: &World) {
    let waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND database = \
                   (SELECT oid FROM pg_database WHERE datname = current_database()))";
    tokio::time::timeout(std::time::Duration::from_secs(30), async {
        while !sqlx::query_scalar::<_, bool>(waiting)
            .fetch_one(&world.database.admin_pool)
            .await
            .unwrap()
        {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the exporter comes to the ratings");
}

#[tokio::test]
async fn a_report_that_fails_while_it_is_exported_keeps_no_file() {
    let world = World::with_catalogue().await;
    let id = world.a_report(json!({})).await;
    let lock = ratings_locked(&world).await;
    let cancelled = async {
        waits_for_ratings(&world).await;
        let failure = Failure::new(FailureReason::Cancelled, "");
        store::reports::fail(&world.database.operator_pool, id, &failure, Timestamp::now())
            .await
            .unwrap();
        lock.commit().await.unwrap();
    };
    let (outcome, ()) = tokio::join!(world.export(id), cancelled);

    assert_eq!(outcome.unwrap(), Outcome::Superseded(State::Failed));
    assert_eq!(world.blobs().await, []);
    assert!(matches!(world.report(id).await.progress, Progress::Failed { .. }));
}

#[tokio::test]
async fn a_run_that_is_told_to_stop_stops_at_once_and_leaves_nothing_visible() {
    let world = World::with_catalogue().await;
    let id = world.a_report(json!({})).await;
    let lock = ratings_locked(&world).await;
    let shutdown = CancellationToken::new();
    let stop = async {
        waits_for_ratings(&world).await;
        shutdown.cancel();
    };
    let config = world.config(id);
    let (outcome, ()) = tokio::join!(exporter::run(&config, &shutdown), stop);
    lock.rollback().await.unwrap();

    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::Stopped), "{error}");
    assert_eq!(error.exit_code(), 75);
    assert_eq!(world.blobs().await, []);
    world.export(id).await.unwrap();
    assert_eq!(world.report(id).await.attempts.get(), 2);
}

#[tokio::test]
async fn what_changes_after_the_snapshot_is_not_in_the_file() {
    let world = World::with_catalogue().await;
    let whole = world.exported(json!({})).await;
    let id = world.a_report(json!({})).await;
    // albums are read after ratings were planned; the lock holds the exporter between its snapshot and its rows
    let lock = ratings_locked(&world).await;
    let change = async {
        waits_for_ratings(&world).await;
        world
            .sql("UPDATE music_albums SET title = 'changed'; DELETE FROM album_artists")
            .await;
        lock.commit().await.unwrap();
    };
    let (outcome, ()) = tokio::join!(world.export(id), change);
    outcome.unwrap();
    let file = world.bytes(&format!("{id}.csv")).await;
    assert!(file == whole, "{}", String::from_utf8_lossy(&file));
}

#[tokio::test]
async fn a_large_file_in_many_pieces_is_whole() {
    let world = World::new().await;
    let rows = 30_000;
    world
        .sql(&format!(
            "INSERT INTO music_albums (id, slug, title, year_of_release)
             SELECT gen_random_uuid(), 'album-' || n, repeat('title ', 60) || n, 2000
             FROM generate_series(1, {rows}) AS n"
        ))
        .await;
    let id = world.a_report(json!({"minRatings": 0})).await;
    world.export(id).await.unwrap();
    let artifact = world.artifact(id).await;
    assert_eq!(artifact.rows, rows);
    assert!(
        artifact.bytes > 10 * 1024 * 1024,
        "more than one block: {}",
        artifact.bytes
    );
    let bytes = world.bytes(artifact.blob.as_str()).await;
    assert_eq!(artifact.sha256.to_string(), hex(&bytes));
    let mut reader = csv::Reader::from_reader(bytes.as_slice());
    let ranks: Vec<u64> = reader
        .records()
        .map(|row| row.unwrap()[0].parse().unwrap())
        .collect();
    assert!(ranks.iter().copied().eq(1..=rows), "every row once and in order");
}

#[tokio::test]
async fn no_parameter_is_ever_part_of_a_statement() {
    let world = World::with_catalogue().await;
    let genre = "'); DROP TABLE ratings; --";
    let file = world.exported(json!({"genre": genre})).await;
    assert_eq!(String::from_utf8(file).unwrap().lines().count(), 1);
    let name = genre.replace('\'', "''");
    let counted: i64 = sqlx::query_scalar(AssertSqlSafe(format!(
        "SELECT count(*) FROM ratings WHERE '{name}' <> ''"
    )))
    .fetch_one(&world.database.admin_pool)
    .await
    .unwrap();
    assert!(counted > 0);
}
