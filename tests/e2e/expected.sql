-- The report as someone would compute it who has only read its description: run by psql, and compared byte
-- for byte with what the exporter wrote. It shares nothing with the product's own query: subqueries for each
-- album where that has joins, and whole-number rounding where that has a numeric division.
--
-- Variables: from, to ('' for none), genre ('' for none), min_ratings, limit (a number), prior_weight,
-- spreadsheet_safe (true or false).
\pset format unaligned
\pset tuples_only on

SET TIME ZONE 'UTC';

CREATE TEMPORARY VIEW rated AS
SELECT *
FROM ratings
WHERE (:'from' = '' OR created_at >= NULLIF(:'from', '')::timestamptz)
  AND (:'to' = '' OR created_at < NULLIF(:'to', '')::timestamptz);

-- a cell of text: made harmless for spreadsheets, then quoted where RFC 4180 asks for it
CREATE FUNCTION pg_temp.cell(content text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    safe text := content;
    white CONSTANT text := E' \t\n\u000b\u000c\r\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000';
BEGIN
    IF current_setting('e2e.spreadsheet_safe')::boolean
        AND content ~ (E'^[' || white || E']*[-=+@\t\r\n\uff1d\uff0b\uff0d\uff20]') THEN
        safe := '''' || content;
    END IF;
    IF safe ~ E'[",\r\n]' THEN
        RETURN '"' || replace(safe, '"', '""') || '"';
    END IF;
    RETURN safe;
END
$$;
SELECT set_config('e2e.spreadsheet_safe', :'spreadsheet_safe', false) \gset ignored_

-- four digits, rounded half up, in whole numbers only
CREATE FUNCTION pg_temp.fraction(numerator numeric, denominator numeric) RETURNS text LANGUAGE sql AS $$
    SELECT to_char(div(20000 * numerator + denominator, 2 * denominator) / 10000, 'FM999999990.0000')
$$;

CREATE FUNCTION pg_temp.moment(moment timestamptz) RETURNS text LANGUAGE sql AS $$
    SELECT to_char(moment, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;

WITH everything AS (
    SELECT coalesce(sum(rating), 0)::numeric AS stars, count(*)::numeric AS ratings FROM rated
),
prior AS (
    -- the mean as a fraction; 3 where nothing is rated
    SELECT CASE ratings WHEN 0 THEN 3 ELSE stars END AS stars, CASE ratings WHEN 0 THEN 1 ELSE ratings END AS ratings
    FROM everything
),
counted AS (
    SELECT
        a.*,
        (SELECT count(*) FROM rated r WHERE r.music_album_id = a.id)::numeric AS n,
        (SELECT coalesce(sum(rating), 0) FROM rated r WHERE r.music_album_id = a.id)::numeric AS stars
    FROM music_albums a
    WHERE :'genre' = '' OR a.id IN (
        SELECT g.music_album_id FROM music_album_genres g WHERE g.genre_id = (SELECT id FROM genres WHERE name = :'genre')
    )
),
scored AS (
    SELECT
        c.*,
        CASE
            WHEN c.n + :prior_weight = 0 THEN pg_temp.fraction(prior.stars, prior.ratings)
            ELSE pg_temp.fraction(
                c.stars * prior.ratings + :prior_weight * prior.stars, (c.n + :prior_weight) * prior.ratings)
        END AS score
    FROM counted c, prior
    WHERE c.n >= :min_ratings
),
placed AS (
    SELECT s.*, row_number() OVER (ORDER BY s.score::numeric DESC, s.n DESC, s.slug COLLATE "C") AS place FROM scored s
),
lines AS (
    SELECT p.place, concat_ws(',',
        p.place,
        p.id,
        pg_temp.cell(p.slug),
        pg_temp.cell(p.title),
        p.year_of_release,
        coalesce(pg_temp.cell((
            SELECT string_agg(ar.name, '; ' ORDER BY aa.artist_order, ar.name COLLATE "C", ar.id)
            FROM album_artists aa JOIN artists ar ON ar.id = aa.artist_id WHERE aa.album_id = p.id)), ''),
        coalesce(pg_temp.cell((
            SELECT string_agg(g.name, '; ' ORDER BY g.name COLLATE "C")
            FROM music_album_genres ag JOIN genres g ON g.id = ag.genre_id WHERE ag.music_album_id = p.id)), ''),
        p.n,
        CASE WHEN p.n = 0 THEN '' ELSE pg_temp.fraction(p.stars, p.n) END,
        p.score,
        (SELECT count(*) FROM rated r WHERE r.music_album_id = p.id AND rating = 1),
        (SELECT count(*) FROM rated r WHERE r.music_album_id = p.id AND rating = 2),
        (SELECT count(*) FROM rated r WHERE r.music_album_id = p.id AND rating = 3),
        (SELECT count(*) FROM rated r WHERE r.music_album_id = p.id AND rating = 4),
        (SELECT count(*) FROM rated r WHERE r.music_album_id = p.id AND rating = 5),
        coalesce(pg_temp.moment((SELECT min(created_at) FROM rated r WHERE r.music_album_id = p.id)), ''),
        coalesce(pg_temp.moment((
            SELECT max(coalesce(updated_at, created_at)) FROM rated r WHERE r.music_album_id = p.id)), '')
    ) AS line
    FROM placed p
    WHERE p.place <= :limit
)
SELECT concat_ws(E'\n',
    'rank,album_id,slug,title,year_of_release,artists,genres,rating_count,average_rating,popularity_score,'
    || 'ratings_1,ratings_2,ratings_3,ratings_4,ratings_5,first_rated_at,last_rated_at',
    (SELECT string_agg(line, E'\n' ORDER BY place) FROM lines)
);
