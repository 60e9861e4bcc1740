-- Schema popularity.v1: how popular each album is. crates/store/src/catalogue.rs has the parameters' types.
--   $1 from, $2 to, $3 genre, $4 minRatings, $5 limit, $6 priorWeight
--
-- Ratings are aggregated first and everything else is joined after: an album has 0..n genres and 0..n
-- artists, and joining those to ratings would multiply the ratings.
WITH counts AS (
    SELECT
        music_album_id,
        count(*) AS rating_count,
        sum(rating) AS rating_sum,
        count(*) FILTER (WHERE rating = 1) AS ratings_1,
        count(*) FILTER (WHERE rating = 2) AS ratings_2,
        count(*) FILTER (WHERE rating = 3) AS ratings_3,
        count(*) FILTER (WHERE rating = 4) AS ratings_4,
        count(*) FILTER (WHERE rating = 5) AS ratings_5,
        min(created_at) AS first_rated_at,
        max(coalesce(updated_at, created_at)) AS last_rated_at
    FROM ratings
    -- Half-open, and a comparison with a NULL created_at is not true: such a rating counts only when neither
    -- end is given.
    WHERE ($1::timestamptz IS NULL OR created_at >= $1)
      AND ($2::timestamptz IS NULL OR created_at < $2)
    GROUP BY music_album_id
),
-- C, the mean of all ratings in the window over the whole catalogue, as the fraction overall_sum /
-- overall_count. With no rating at all it is 3.
overall AS (
    SELECT
        coalesce(sum(rating_sum), 3)::numeric AS overall_sum,
        coalesce(sum(rating_count), 1)::numeric AS overall_count
    FROM counts
),
scored AS (
    SELECT
        album.id,
        album.slug,
        album.title,
        album.year_of_release,
        coalesce(counts.rating_count, 0) AS rating_count,
        coalesce(counts.ratings_1, 0) AS ratings_1,
        coalesce(counts.ratings_2, 0) AS ratings_2,
        coalesce(counts.ratings_3, 0) AS ratings_3,
        coalesce(counts.ratings_4, 0) AS ratings_4,
        coalesce(counts.ratings_5, 0) AS ratings_5,
        counts.first_rated_at,
        counts.last_rated_at,
        -- Both decimals are whole ten-thousandths, rounded half up: div(20000 n + d, 2 d) is n / d. Integers
        -- throughout and one division, so the digits do not hang on plan or platform.
        div(20000 * counts.rating_sum::numeric + counts.rating_count, 2 * counts.rating_count::numeric)
            ::bigint AS average_rating,
        div(20000 * weight.numerator + weight.denominator, 2 * weight.denominator)
            ::bigint AS popularity_score
    FROM music_albums AS album
    CROSS JOIN overall
    LEFT JOIN counts ON counts.music_album_id = album.id
    -- (sum + m C) / (count + m), with both sides multiplied by C's denominator. An unrated album has C, also
    -- with m = 0, where the fraction itself would be 0 / 0.
    CROSS JOIN LATERAL (
        SELECT
            CASE
                WHEN coalesce(counts.rating_count, 0) = 0 THEN overall.overall_sum
                ELSE counts.rating_sum * overall.overall_count + $6::bigint * overall.overall_sum
            END AS numerator,
            CASE
                WHEN coalesce(counts.rating_count, 0) = 0 THEN overall.overall_count
                ELSE (counts.rating_count + $6::bigint) * overall.overall_count
            END AS denominator
    ) AS weight
    WHERE coalesce(counts.rating_count, 0) >= $4::bigint
      AND (
          $3::text IS NULL
          OR album.id IN (
              SELECT link.music_album_id
              FROM music_album_genres AS link
              JOIN genres AS genre ON genre.id = link.genre_id
              WHERE genre.name = $3
          )
      )
),
-- The order is total, because a slug is unique, and the same on every server, because it is in byte order.
ranked AS (
    SELECT
        row_number() OVER (
            ORDER BY popularity_score DESC, rating_count DESC, slug COLLATE "C"
        ) AS rank,
        scored.*
    FROM scored
    ORDER BY rank
    LIMIT $5::bigint
),
album_artist_names AS (
    SELECT
        link.album_id,
        string_agg(
            artist.name, '; '
            ORDER BY link.artist_order, artist.name COLLATE "C", artist.id
        ) AS artists
    FROM album_artists AS link
    JOIN artists AS artist ON artist.id = link.artist_id
    GROUP BY link.album_id
),
album_genre_names AS (
    SELECT
        link.music_album_id,
        string_agg(genre.name, '; ' ORDER BY genre.name COLLATE "C") AS genres
    FROM music_album_genres AS link
    JOIN genres AS genre ON genre.id = link.genre_id
    GROUP BY link.music_album_id
)
SELECT
    ranked.rank AS "rank!",
    ranked.id AS "album_id!",
    ranked.slug AS "slug!",
    ranked.title AS "title!",
    ranked.year_of_release AS "year_of_release!",
    coalesce(album_artist_names.artists, '') AS "artists!",
    coalesce(album_genre_names.genres, '') AS "genres!",
    ranked.rating_count AS "rating_count!",
    ranked.average_rating AS "average_rating: _",
    ranked.popularity_score AS "popularity_score!: _",
    ranked.ratings_1 AS "ratings_1!",
    ranked.ratings_2 AS "ratings_2!",
    ranked.ratings_3 AS "ratings_3!",
    ranked.ratings_4 AS "ratings_4!",
    ranked.ratings_5 AS "ratings_5!",
    ranked.first_rated_at AS "first_rated_at: _",
    ranked.last_rated_at AS "last_rated_at: _"
FROM ranked
LEFT JOIN album_artist_names ON album_artist_names.album_id = ranked.id
LEFT JOIN album_genre_names ON album_genre_names.music_album_id = ranked.id
ORDER BY ranked.rank
