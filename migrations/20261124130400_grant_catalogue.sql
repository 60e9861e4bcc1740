-- The exporter's role may read the six tables of the music-albums service that a report is made from, and
-- nothing else. Those tables are another team's and may appear after ours, so this is a function that each
-- run of the migrations calls, not a statement that is done once.
CREATE FUNCTION public.popularity_reports_grant_catalogue() RETURNS SETOF text
    LANGUAGE plpgsql
    AS $$
DECLARE
    relation text;
BEGIN
    -- two replicas that grant at once would otherwise meet as "tuple concurrently updated"
    PERFORM pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('popularity_reports_grant_catalogue'));
    FOREACH relation IN ARRAY ARRAY[
        'music_albums', 'genres', 'music_album_genres', 'artists', 'album_artists', 'ratings'
    ] LOOP
        IF to_regclass('public.' || relation) IS NULL THEN
            RETURN NEXT relation;
            CONTINUE;
        END IF;
        -- at rest nothing is written
        CONTINUE WHEN has_table_privilege('popularity_reports_catalogue', 'public.' || relation, 'SELECT');
        BEGIN
            EXECUTE format('GRANT SELECT ON TABLE public.%I TO popularity_reports_catalogue', relation);
        EXCEPTION
            WHEN insufficient_privilege THEN NULL;
        END;
        IF NOT has_table_privilege('popularity_reports_catalogue', 'public.' || relation, 'SELECT') THEN
            RETURN NEXT relation;
        END IF;
    END LOOP;
END
$$;

COMMENT ON FUNCTION public.popularity_reports_grant_catalogue() IS
    'Lets popularity_reports_catalogue read the music-albums tables that a report is made from; returns those that it still cannot read. Safe to call again at any time.';

REVOKE EXECUTE ON FUNCTION public.popularity_reports_grant_catalogue() FROM PUBLIC;
