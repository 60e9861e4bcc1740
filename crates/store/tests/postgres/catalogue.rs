use std::collections::BTreeMap;

use domain::Parameters;
use futures::TryStreamExt as _;
use rstest::rstest;
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor as _, PgPool};
use store::catalogue::{AlbumPopularity, ErrorKind, Snapshot, TenThousandths};
use store::testing::{self, TestDatabase};
use uuid::Uuid;

fn parameters(value: serde_json::Value) -> Parameters {
    Parameters::from_json(&value).unwrap()
}

async fn read(database: &TestDatabase, value: serde_json::Value) -> Vec<AlbumPopularity> {
    let mut snapshot = Snapshot::open(&database.exporter_pool).await.unwrap();
    snapshot.albums(&parameters(value)).try_collect().await.unwrap()
}

fn album(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

/// Slug, rating count, average and score, as the file shows them.
fn brief(rows: &[AlbumPopularity]) -> Vec<String> {
    rows.iter()
        .map(|row| {
            let average = row
                .average_rating
                .map_or_else(|| "-".to_owned(), |average| average.to_string());
            format!(
                "{} {} {average} {}",
                row.slug, row.rating_count, row.popularity_score
            )
        })
        .collect()
}

/// Four albums: one with 3 genres and 2 artists, one whose times are unknown, one without anything.
///
/// In all: 6 ratings, sum 23.
async fn four_albums() -> TestDatabase {
    let database = testing::database().await;
    let fixture = "
        INSERT INTO music_albums (id, slug, title, year_of_release) VALUES
            ('00000000-0000-0000-0000-000000000001', 'abbey-road', 'Abbey Road', 1969),
            ('00000000-0000-0000-0000-000000000002', 'blue', 'Blue', 1971),
            ('00000000-0000-0000-0000-000000000003', 'kind-of-blue', 'Kind of Blue', 1959),
            ('00000000-0000-0000-0000-000000000004', 'untold', '=1+1, \"quoted\"', 2024);
        INSERT INTO genres (id, name) VALUES (1, 'rock'), (2, 'Rock'), (3, 'Pop'), (4, 'Jazz');
        INSERT INTO music_album_genres (music_album_id, genre_id) VALUES
            ('00000000-0000-0000-0000-000000000001', 1), ('00000000-0000-0000-0000-000000000001', 2),
            ('00000000-0000-0000-0000-000000000001', 3), ('00000000-0000-0000-0000-000000000003', 4);
        INSERT INTO artists (id, name, slug) VALUES
            ('00000000-0000-0000-0000-0000000000a1', 'The Beatles', 'the-beatles'),
            ('00000000-0000-0000-0000-0000000000a2', 'George Martin', 'george-martin'),
            ('00000000-0000-0000-0000-0000000000a3', 'bill', 'bill'),
            ('00000000-0000-0000-0000-0000000000a4', 'Zoe', 'zoe-2'),
            ('00000000-0000-0000-0000-0000000000a5', 'Zoe', 'zoe-1');
        INSERT INTO album_artists (album_id, artist_id, artist_order, role) VALUES
            ('00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-0000000000a2', 2, 'producer'),
            ('00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-0000000000a1', 1, 'main'),
            ('00000000-0000-0000-0000-000000000003', '00000000-0000-0000-0000-0000000000a3', 1, 'main'),
            ('00000000-0000-0000-0000-000000000003', '00000000-0000-0000-0000-0000000000a5', 1, 'main'),
            ('00000000-0000-0000-0000-000000000003', '00000000-0000-0000-0000-0000000000a4', 1, 'main');
        INSERT INTO ratings (user_id, music_album_id, rating, created_at, updated_at) VALUES
            (gen_random_uuid(), '00000000-0000-0000-0000-000000000001', 5, '2026-01-01T00:00:00Z', NULL),
            (gen_random_uuid(), '00000000-0000-0000-0000-000000000001', 5, '2026-01-10T00:00:00Z', '2026-02-10T00:00:00.000001Z'),
            (gen_random_uuid(), '00000000-0000-0000-0000-000000000001', 4, '2026-02-01T00:00:00Z', '2026-02-01T00:00:00Z'),
            (gen_random_uuid(), '00000000-0000-0000-0000-000000000002', 3, NULL, NULL),
            (gen_random_uuid(), '00000000-0000-0000-0000-000000000003', 2, '2025-12-31T23:59:59.999999Z', NULL),
            (gen_random_uuid(), '00000000-0000-0000-0000-000000000003', 4, '2026-01-31T23:59:59.999999Z', NULL);";
    database.admin_pool.execute(fixture).await.unwrap();
    database
}

#[tokio::test]
async fn genres_and_artists_do_not_multiply_ratings() {
    let database = four_albums().await;

    let rows = read(&database, json!({})).await;

    assert_eq!(
        rows[0],
        AlbumPopularity {
            rank: 1,
            album_id: album(1),
            slug: "abbey-road".to_owned(),
            title: "Abbey Road".to_owned(),
            year_of_release: 1969,
            artists: "The Beatles; George Martin".to_owned(),
            genres: "Pop; Rock; rock".to_owned(),
            rating_count: 3,
            // 14 / 3
            average_rating: Some(TenThousandths::new(46_667)),
            // (14 + 10 · 23/6) / 13 = 314 / 78
            popularity_score: TenThousandths::new(40_256),
            histogram: [0, 0, 0, 1, 2],
            first_rated_at: Some("2026-01-01T00:00:00Z".parse().unwrap()),
            last_rated_at: Some("2026-02-10T00:00:00.000001Z".parse().unwrap()),
        }
    );
}

#[tokio::test]
async fn names_are_joined_by_order_then_bytes_then_id() {
    let database = four_albums().await;

    let rows = read(&database, json!({"genre": "Jazz"})).await;

    assert_eq!(rows[0].artists, "Zoe; Zoe; bill");
    assert_eq!(rows.len(), 1);
}

#[tokio::test]
async fn a_rating_of_unknown_time_counts_and_shows_no_time() {
    let database = four_albums().await;

    let rows = read(&database, json!({})).await;

    let blue = rows.iter().find(|row| row.slug == "blue").unwrap();
    assert_eq!(
        (blue.rating_count, blue.first_rated_at, blue.last_rated_at),
        (1, None, None)
    );
    assert_eq!((blue.artists.as_str(), blue.genres.as_str()), ("", ""));
}

#[tokio::test]
async fn the_parameters_choose_and_weigh_the_rows() {
    let database = four_albums().await;
    let cases: [(serde_json::Value, &[&str]); 15] = [
        // C = 23/6; scores 314/78, 248/66, 266/72
        (
            json!({}),
            &[
                "abbey-road 3 4.6667 4.0256",
                "blue 1 3.0000 3.7576",
                "kind-of-blue 2 3.0000 3.6944",
            ],
        ),
        // unrated too
        (
            json!({"minRatings": 0}),
            &[
                "abbey-road 3 4.6667 4.0256",
                "untold 0 - 3.8333",
                "blue 1 3.0000 3.7576",
                "kind-of-blue 2 3.0000 3.6944",
            ],
        ),
        // the plain mean; of two equal ones the more often rated comes first
        (
            json!({"priorWeight": 0}),
            &[
                "abbey-road 3 4.6667 4.6667",
                "kind-of-blue 2 3.0000 3.0000",
                "blue 1 3.0000 3.0000",
            ],
        ),
        (
            json!({"priorWeight": 0, "minRatings": 0, "limit": 2}),
            &["abbey-road 3 4.6667 4.6667", "untold 0 - 3.8333"],
        ),
        (
            json!({"minRatings": 2}),
            &["abbey-road 3 4.6667 4.0256", "kind-of-blue 2 3.0000 3.6944"],
        ),
        (
            json!({"limit": 1, "minRatings": 0}),
            &["abbey-road 3 4.6667 4.0256"],
        ),
        // C stays that of the whole catalogue
        (json!({"genre": "Jazz"}), &["kind-of-blue 2 3.0000 3.6944"]),
        (json!({"genre": "jazz"}), &[]),
        (json!({"genre": "'; DROP TABLE genres; --"}), &[]),
        // from is in the window and to is not: ratings 5, 5 and 4, so C = 14/3; the unknown time is out
        (
            json!({"from": "2026-01-01T00:00:00Z", "to": "2026-02-01T00:00:00Z"}),
            &["abbey-road 2 5.0000 4.7222", "kind-of-blue 1 4.0000 4.6061"],
        ),
        // a microsecond less
        (
            json!({"from": "2026-01-01T00:00:00.000001Z", "to": "2026-02-01T00:00:00Z", "priorWeight": 0}),
            &["abbey-road 1 5.0000 5.0000", "kind-of-blue 1 4.0000 4.0000"],
        ),
        (
            json!({"to": "2026-01-01T00:00:00Z", "priorWeight": 0}),
            &["kind-of-blue 1 2.0000 2.0000"],
        ),
        // another offset, the same moment
        (
            json!({"from": "2026-02-01T01:00:00+01:00", "priorWeight": 0}),
            &["abbey-road 1 4.0000 4.0000"],
        ),
        (json!({"from": "2999-01-01T00:00:00Z"}), &[]),
        // without any rating C is 3
        (
            json!({"from": "2999-01-01T00:00:00Z", "minRatings": 0}),
            &[
                "abbey-road 0 - 3.0000",
                "blue 0 - 3.0000",
                "kind-of-blue 0 - 3.0000",
                "untold 0 - 3.0000",
            ],
        ),
    ];
    for (value, expected) in cases {
        let rows = read(&database, value.clone()).await;

        assert_eq!(brief(&rows), expected, "{value}");
        let ranks: Vec<_> = rows.iter().map(|row| row.rank).collect();
        assert_eq!(ranks, (1..).take(rows.len()).collect::<Vec<_>>(), "{value}");
    }
}

#[tokio::test]
async fn equal_scores_and_counts_are_ordered_by_the_bytes_of_the_slug() {
    let database = testing::database().await;
    database
        .admin_pool
        .execute(
            "INSERT INTO music_albums (id, slug, title, year_of_release)
             SELECT gen_random_uuid(), slug, slug, 2000
             FROM unnest(ARRAY['a-b', 'ab', 'A-b', 'é', 'z', '1', 'a b', 'Z']) AS slug;
             INSERT INTO ratings (user_id, music_album_id, rating) SELECT gen_random_uuid(), id, 4 FROM music_albums;",
        )
        .await
        .unwrap();

    let rows = read(&database, json!({})).await;

    let slugs: Vec<_> = rows.iter().map(|row| row.slug.as_str()).collect();
    assert_eq!(slugs, ["1", "A-b", "Z", "a b", "a-b", "ab", "z", "é"]);
}

#[tokio::test]
async fn a_half_of_a_ten_thousandth_is_rounded_up() {
    let database = testing::database().await;
    // 97 / 32 = 3.03125
    database
        .admin_pool
        .execute(
            "INSERT INTO music_albums (id, slug, title, year_of_release) VALUES (gen_random_uuid(), 'half', 'Half', 2000);
             INSERT INTO ratings (user_id, music_album_id, rating)
             SELECT gen_random_uuid(), id, CASE n WHEN 1 THEN 4 ELSE 3 END
             FROM music_albums, generate_series(1, 32) AS n;",
        )
        .await
        .unwrap();

    let rows = read(&database, json!({})).await;

    assert_eq!(brief(&rows), ["half 32 3.0313 3.0313"]);
}

/// The definition again, from the raw ratings, by other means.
fn by_hand(
    albums: &[(Uuid, String)],
    ratings: &[(Uuid, i32)],
    min_ratings: i64,
    weight: i128,
) -> Vec<(String, i64, TenThousandths)> {
    let mut of_album: BTreeMap<Uuid, (i128, i128)> = BTreeMap::new();
    for (album, rating) in ratings {
        let entry = of_album.entry(*album).or_default();
        entry.0 += 1;
        entry.1 += i128::from(*rating);
    }
    let n: i128 = of_album.values().map(|(count, _)| count).sum();
    let s: i128 = of_album.values().map(|(_, sum)| sum).sum();
    let mut rows: Vec<_> = albums
        .iter()
        .filter_map(|(id, slug)| {
            let (count, sum) = of_album.get(id).copied().unwrap_or_default();
            let (numerator, denominator) = if count == 0 {
                (s, n)
            } else {
                (sum * n + weight * s, (count + weight) * n)
            };
            let scaled = numerator * 10_000;
            let round_up = (scaled % denominator) * 2 >= denominator;
            let score = i64::try_from(scaled / denominator + i128::from(round_up)).unwrap();
            let count = i64::try_from(count).unwrap();
            (count >= min_ratings).then(|| (slug.clone(), count, TenThousandths::new(score)))
        })
        .collect();
    rows.sort_by(|a, b| (b.2, b.1, a.0.as_bytes()).cmp(&(a.2, a.1, b.0.as_bytes())));
    rows
}

#[tokio::test]
async fn two_thousand_albums_agree_with_the_definition_digit_for_digit() {
    let database = testing::database().await;
    database
        .admin_pool
        .execute(
            "SELECT setseed(0.42);
             INSERT INTO music_albums (id, slug, title, year_of_release)
             SELECT md5(n::text)::uuid, md5('slug' || n), 'Album ' || n, 1950 + n % 75
             FROM generate_series(1, 2000) AS n;
             INSERT INTO ratings (user_id, music_album_id, rating)
             SELECT gen_random_uuid(), md5((1 + floor(1990 * random() ^ 3))::int::text)::uuid, 1 + floor(5 * sqrt(random()))::int
             FROM generate_series(1, 20000) AS n;",
        )
        .await
        .unwrap();
    let pool: &PgPool = &database.admin_pool;
    let albums: Vec<(Uuid, String)> = sqlx::query_as("SELECT id, slug FROM music_albums")
        .fetch_all(pool)
        .await
        .unwrap();
    let ratings: Vec<(Uuid, i32)> = sqlx::query_as("SELECT music_album_id, rating FROM ratings")
        .fetch_all(pool)
        .await
        .unwrap();

    for (min_ratings, weight) in [(1, 10), (0, 7), (12, 0), (3, 100_000)] {
        let asked = json!({"minRatings": min_ratings, "priorWeight": u32::try_from(weight).unwrap()});
        let rows = read(&database, asked).await;

        let found: Vec<_> = rows
            .iter()
            .map(|row| (row.slug.clone(), row.rating_count, row.popularity_score))
            .collect();
        assert_eq!(
            found,
            by_hand(&albums, &ratings, min_ratings, weight),
            "{min_ratings} {weight}"
        );
        for row in &rows {
            assert_eq!(row.histogram.iter().sum::<i64>(), row.rating_count);
        }
    }
}

#[tokio::test]
async fn a_snapshot_sees_nothing_that_came_after_it() {
    let database = four_albums().await;
    let mut snapshot = Snapshot::open(&database.exporter_pool).await.unwrap();

    database.admin_pool.execute("DELETE FROM ratings").await.unwrap();
    let rows: Vec<_> = snapshot
        .albums(&parameters(json!({})))
        .try_collect()
        .await
        .unwrap();

    assert_eq!(rows.len(), 3);
    assert!(snapshot.data_as_of() <= jiff::Timestamp::now());
    let later = Snapshot::open(&database.exporter_pool).await.unwrap();
    assert!(later.data_as_of() > snapshot.data_as_of());
}

#[rstest]
#[case::missing_table("DROP TABLE album_artists CASCADE", ErrorKind::Rejected)]
#[case::missing_column("ALTER TABLE music_albums DROP COLUMN year_of_release", ErrorKind::Rejected)]
#[case::no_permission(
    "REVOKE SELECT ON ratings FROM popularity_reports_exporter",
    ErrorKind::Rejected
)]
#[case::year_zero("UPDATE ratings SET created_at = '-infinity'", ErrorKind::InvalidData)]
#[tokio::test]
async fn what_only_a_person_can_mend_is_told_from_what_time_mends(
    #[case] damage: &'static str,
    #[case] kind: ErrorKind,
) {
    let database = four_albums().await;
    database.admin_pool.execute(damage).await.unwrap();
    let mut snapshot = Snapshot::open(&database.exporter_pool).await.unwrap();

    let outcome = snapshot
        .albums(&parameters(json!({})))
        .try_collect::<Vec<_>>()
        .await;

    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), kind, "{error:?}");
}

#[tokio::test]
async fn a_catalogue_that_is_away_is_temporary_and_a_refused_login_is_not() {
    let database = testing::database().await;
    let nobody_there = testing::pool(&"postgres://nobody@127.0.0.1:1/nothing".to_owned().into(), 1);
    database
        .admin_pool
        .execute(AssertSqlSafe(format!(
            "ALTER ROLE {}_exporter NOLOGIN",
            database.name
        )))
        .await
        .unwrap();

    let away = Snapshot::open(&nobody_there).await.unwrap_err();
    let refused = Snapshot::open(&database.exporter_pool).await.unwrap_err();

    assert_eq!(away.kind(), ErrorKind::Unavailable, "{away:?}");
    assert_eq!(refused.kind(), ErrorKind::Rejected, "{refused:?}");
}

#[tokio::test]
async fn an_album_whose_statement_is_cut_short_is_temporary() {
    let database = four_albums().await;
    let mut snapshot = Snapshot::open(&database.exporter_pool).await.unwrap();
    database
        .admin_pool
        .execute("SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE state = 'idle in transaction' AND datname = current_database()")
        .await
        .unwrap();

    let outcome = snapshot
        .albums(&parameters(json!({})))
        .try_collect::<Vec<_>>()
        .await;

    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Unavailable);
}
