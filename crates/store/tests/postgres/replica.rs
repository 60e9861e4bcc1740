//! The catalogue read from a replica: a primary and a streaming standby of the test's own.

mod standby;

use std::time::Duration;

use domain::Parameters;
use futures::TryStreamExt as _;
use jiff::Timestamp;
use sqlx::{AssertSqlSafe, Executor as _, PgPool};
use store::catalogue::{ErrorKind, Snapshot};
use store::testing::CATALOGUE_SCHEMA;

use standby::Replicated;

/// How long replication has to do what it was asked for.
const SOON: Duration = Duration::from_secs(20);

async fn with_catalogue() -> Replicated {
    let servers = Replicated::start().await;
    servers.primary.execute(CATALOGUE_SCHEMA).await.unwrap();
    servers
}

async fn insert_album(primary: &PgPool, slug: &str) {
    let statement = format!(
        "INSERT INTO music_albums (id, slug, title, year_of_release)
         VALUES (gen_random_uuid(), '{slug}', '{slug}', 1969)"
    );
    primary.execute(AssertSqlSafe(statement)).await.unwrap();
}

async fn clock(primary: &PgPool) -> Timestamp {
    let text: String = sqlx::query_scalar("SELECT to_json(clock_timestamp())#>>'{}'")
        .fetch_one(primary)
        .await
        .unwrap();
    text.parse().unwrap()
}

fn everything() -> Parameters {
    Parameters {
        min_ratings: 0,
        ..Parameters::default()
    }
}

async fn slugs(snapshot: &mut Snapshot) -> Vec<String> {
    let parameters = everything();
    let albums = snapshot.albums(&parameters).map_ok(|album| album.slug);
    albums.try_collect().await.unwrap()
}

#[tokio::test]
async fn a_report_of_a_replica_is_of_the_moment_up_to_which_it_has_replayed() {
    let servers = with_catalogue().await;
    let Replicated { primary, standby, .. } = &servers;
    insert_album(primary, "abbey-road").await;
    let first_is_in = clock(primary).await;
    servers.caught_up(SOON).await;
    standby.execute("SELECT pg_wal_replay_pause()").await.unwrap();
    servers.paused(SOON).await;
    let second_is_not = clock(primary).await;
    insert_album(primary, "blue").await;

    let mut behind = Snapshot::open(standby).await.unwrap();

    assert_eq!(slugs(&mut behind).await, ["abbey-road"]);
    assert!(
        behind.data_as_of() <= second_is_not,
        "{} claims the album of {second_is_not}",
        behind.data_as_of()
    );
    drop(behind);
    let of_primary = Snapshot::open(primary).await.unwrap();
    assert!(
        of_primary.data_as_of() > second_is_not,
        "a primary's is its present"
    );
    drop(of_primary);

    standby.execute("SELECT pg_wal_replay_resume()").await.unwrap();
    servers.caught_up(SOON).await;
    let mut level = Snapshot::open(standby).await.unwrap();
    assert_eq!(slugs(&mut level).await, ["abbey-road", "blue"]);
    assert!(level.data_as_of() > second_is_not && second_is_not >= first_is_in);
}

#[tokio::test]
async fn a_replica_that_has_replayed_nothing_since_its_start_tells_its_last_checkpoint() {
    let servers = with_catalogue().await;
    servers.primary.execute("CHECKPOINT").await.unwrap();
    servers.caught_up(SOON).await;
    let servers = servers.restart_standby_without_primary().await;
    let replayed: Option<String> = sqlx::query_scalar("SELECT pg_last_xact_replay_timestamp()::text")
        .fetch_one(&servers.standby)
        .await
        .unwrap();
    assert_eq!(replayed, None);
    let before = clock(&servers.standby).await;

    let snapshot = Snapshot::open(&servers.standby).await.unwrap();

    assert!(snapshot.data_as_of() < before, "not its own present");
}

#[tokio::test]
async fn a_snapshot_that_replication_has_to_cancel_can_be_tried_again() {
    let servers = with_catalogue().await;
    let Replicated { primary, standby, .. } = &servers;
    insert_album(primary, "abbey-road").await;
    insert_album(primary, "blue").await;
    servers.caught_up(SOON).await;
    let mut snapshot = Snapshot::open(standby).await.unwrap();

    // rows that the snapshot still needs are cleaned away, and the standby waits for nobody
    primary
        .execute("DELETE FROM music_albums WHERE slug = 'blue'")
        .await
        .unwrap();
    primary.execute("VACUUM music_albums").await.unwrap();
    servers.caught_up(SOON).await;

    let parameters = everything();
    let error = snapshot
        .albums(&parameters)
        .try_collect::<Vec<_>>()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(format!("{error:?}").contains("40001"), "{error:?}");
    drop(snapshot);
    let mut again = Snapshot::open(standby).await.unwrap();
    assert_eq!(slugs(&mut again).await, ["abbey-road"]);
}
