//! Loading, on a real PostgreSQL.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use sample_data::{Catalogue, Error, Loaded, Plan, create_schema, load};
use sqlx::PgPool;
use store::testing::empty_database;

const PLAN: Plan = Plan {
    albums: 300,
    ratings: 5_000,
    seed: 7,
};

async fn count(pool: &PgPool, table: &'static str) -> i64 {
    let statement = format!("SELECT count(*) FROM {table}");
    sqlx::query_scalar(sqlx::AssertSqlSafe(statement))
        .fetch_one(pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_plan_is_loaded_whole() {
    let database = empty_database().await;
    let pool = &database.admin_pool;
    let mut tables = Vec::new();
    let loaded = load(pool, &PLAN, false, |step| {
        if step.done {
            tables.push(step.table);
        }
    });
    assert_eq!(
        loaded.await.unwrap(),
        Loaded {
            albums: 300,
            ratings: 5_000
        }
    );
    assert_eq!(tables.last(), Some(&"ratings"));
    assert_eq!(count(pool, "ratings").await, 5_000);
}

#[tokio::test]
async fn every_title_arrives_as_it_was_made() {
    let database = empty_database().await;
    let pool = &database.admin_pool;
    load(pool, &PLAN, false, |_| ()).await.unwrap();
    for album in Catalogue::generate(&PLAN).unwrap().albums {
        let title: String = sqlx::query_scalar("SELECT title FROM music_albums WHERE id = $1")
            .bind(album.id)
            .fetch_one(pool)
            .await
            .unwrap();
        assert_eq!(title, album.title);
    }
}

#[tokio::test]
async fn a_table_with_rows_is_left_alone_unless_replacing_is_asked_for() {
    let database = empty_database().await;
    let pool = &database.admin_pool;
    create_schema(pool).await.unwrap();
    sqlx::query("INSERT INTO genres (name) VALUES ('Mine')")
        .execute(pool)
        .await
        .unwrap();

    let refused = load(pool, &PLAN, false, |_| ()).await.unwrap_err();
    assert!(
        matches!(refused, Error::NotEmpty { table: "genres" }),
        "{refused}"
    );
    assert!(refused.to_string().contains("--replace"));
    assert_eq!(count(pool, "genres").await, 1);
    assert_eq!(count(pool, "music_albums").await, 0);

    for _ in 0..2 {
        load(pool, &PLAN, true, |_| ()).await.unwrap();
        assert_eq!(count(pool, "music_albums").await, 300);
    }
    // The service can go on adding genres.
    sqlx::query("INSERT INTO genres (name) VALUES ('Mine')")
        .execute(pool)
        .await
        .unwrap();
}
