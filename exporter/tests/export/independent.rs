//! The file against another way to the same numbers: plain SQL with a subquery for each value, rendered by
//! PostgreSQL's COPY.

use futures::TryStreamExt as _;
use rstest::rstest;
use sample_data::Plan;
use serde_json::{Value, json};

use crate::support::World;

/// COPY takes no parameters, so the test's own numbers are put in as text. `$safe` is a SQL expression over
/// `cell`.
fn copy(from: &str, to: &str, min_ratings: i64, weight: i64, limit: i64, safe: bool) -> String {
    let text = |expression: &str| {
        let risky = r"'^(\s|\u00a0|\ufeff)*[=+@＝＋－＠-]|^[\s\u00a0]*[\t\r\n]'";
        let defused = format!(
            "CASE WHEN {safe} AND {expression} ~ {risky} AND {expression} !~ '^\\ufeff' \
             THEN '''' || {expression} ELSE {expression} END"
        );
        format!("nullif({defused}, '')")
    };
    let moment = |expression: &str| {
        format!(r#"to_char(({expression}) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"#)
    };
    let window = format!("(created_at >= {from} OR {from} IS NULL) AND (created_at < {to} OR {to} IS NULL)");
    let of = |what: &str| format!("(SELECT {what} FROM ratings WHERE music_album_id = a.id AND {window})");
    let stars = |n: u8| of(&format!("count(CASE WHEN rating = {n} THEN 1 END)"));
    format!(
        r#"
        COPY (
            SELECT
                row_number() OVER (ORDER BY popularity_score DESC, rating_count DESC, convert_to(slug_exact, 'UTF8'))
                    AS rank,
                album_id, slug, title, year_of_release, artists, genres, rating_count, average_rating,
                popularity_score, ratings_1, ratings_2, ratings_3, ratings_4, ratings_5, first_rated_at,
                last_rated_at
            FROM (
                SELECT
                    a.id AS album_id,
                    a.slug AS slug_exact,
                    {slug} AS slug,
                    {title} AS title,
                    year_of_release,
                    {artists} AS artists,
                    {genres} AS genres,
                    {count} AS rating_count,
                    round({mean}, 4) AS average_rating,
                    round(
                        ({sum} * total.n + {weight} * total.stars)::numeric
                            / nullif(({count} + {weight}) * total.n, 0),
                        4
                    ) AS popularity_score,
                    {one} AS ratings_1, {two} AS ratings_2, {three} AS ratings_3, {four} AS ratings_4,
                    {five} AS ratings_5,
                    {first} AS first_rated_at,
                    {last} AS last_rated_at
                FROM music_albums AS a,
                    (SELECT count(*) AS n, sum(rating) AS stars FROM ratings WHERE {window}) AS total
            ) AS albums
            WHERE rating_count >= {min_ratings}
            ORDER BY 1
            LIMIT {limit}
        ) TO STDOUT (FORMAT csv, HEADER)
        "#,
        slug = text("a.slug"),
        title = text("a.title"),
        artists = text(
            "(SELECT string_agg(name, '; ' ORDER BY artist_order, convert_to(name, 'UTF8'), x.id) \
             FROM artists AS x JOIN album_artists AS y ON y.artist_id = x.id WHERE y.album_id = a.id)"
        ),
        genres = text(
            "(SELECT string_agg(name, '; ' ORDER BY convert_to(name, 'UTF8')) \
             FROM genres AS x JOIN music_album_genres AS y ON y.genre_id = x.id WHERE y.music_album_id = a.id)"
        ),
        count = of("count(*)"),
        sum = of("coalesce(sum(rating), 0)"),
        mean = of("avg(rating)"),
        one = stars(1),
        two = stars(2),
        three = stars(3),
        four = stars(4),
        five = stars(5),
        first = moment(&of("min(created_at)")),
        last = moment(&of("max(coalesce(updated_at, created_at))")),
    )
}

#[rstest]
#[case::defaults(json!({}), copy("NULL::timestamptz", "NULL::timestamptz", 1, 10, 1_000_000, true))]
#[case::window(
    json!({"from": "2023-01-01T00:00:00Z", "to": "2025-01-01T00:00:00Z", "minRatings": 2, "priorWeight": 3}),
    copy("'2023-01-01 00:00:00Z'::timestamptz", "'2025-01-01 00:00:00Z'::timestamptz", 2, 3, 1_000_000, true)
)]
#[case::exact_and_short(
    json!({"spreadsheetSafe": false, "limit": 50, "minRatings": 0}),
    copy("NULL::timestamptz", "NULL::timestamptz", 0, 10, 50, false)
)]
#[tokio::test]
async fn the_file_is_what_postgresql_says_by_other_means(#[case] parameters: Value, #[case] copy: String) {
    let world = World::new().await;
    let plan = Plan {
        albums: 400,
        ratings: 6_000,
        seed: 7,
    };
    sample_data::load(&world.database.admin_pool, &plan, false, |_| {})
        .await
        .unwrap();

    let file = world.exported(parameters).await;

    let mut connection = world.database.admin_pool.acquire().await.unwrap();
    let pieces = connection.copy_out_raw(&copy).await.unwrap();
    let expected = pieces.try_collect::<Vec<_>>().await.unwrap().concat();
    let (file, expected) = (
        String::from_utf8(file).unwrap(),
        String::from_utf8(expected).unwrap(),
    );
    assert!(file.lines().count() > 40, "the sample is worth comparing");
    let difference = file
        .lines()
        .zip(expected.lines())
        .find(|(ours, theirs)| ours != theirs);
    assert_eq!(difference, None);
    assert!(file == expected, "one file is the beginning of the other");
}

#[tokio::test]
async fn the_mean_to_one_digit_is_what_the_music_albums_service_shows() {
    let world = World::new().await;
    let plan = Plan {
        albums: 300,
        ratings: 3_000,
        seed: 11,
    };
    sample_data::load(&world.database.admin_pool, &plan, false, |_| {})
        .await
        .unwrap();
    let shown: Vec<(String, String)> = sqlx::query_as(
        "SELECT music_album_id::text, round(avg(rating), 1)::text FROM ratings GROUP BY 1 ORDER BY 1",
    )
    .fetch_all(&world.database.admin_pool)
    .await
    .unwrap();

    let file = world.exported(json!({"spreadsheetSafe": false})).await;
    let mut reader = csv::Reader::from_reader(file.as_slice());
    let mut ours: Vec<(String, String)> = reader
        .records()
        .map(|row| {
            let row = row.unwrap();
            let mean: u64 = row[8].replace('.', "").parse().unwrap();
            let tenths = (mean + 500) / 1000;
            (row[1].to_owned(), format!("{}.{}", tenths / 10, tenths % 10))
        })
        .collect();
    ours.sort();
    assert_eq!(ours, shown);
}
