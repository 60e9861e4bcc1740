-- The catalogue's readers are now the exporters; the role that read it before loses that. As before, only the
-- owner of those tables can do either, and what could not be done is passed over and told.
CREATE OR REPLACE FUNCTION public.popularity_reports_grant_catalogue() RETURNS SETOF text
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
        BEGIN
            IF NOT has_table_privilege('popularity_reports_exporter', 'public.' || relation, 'SELECT') THEN
                EXECUTE format('GRANT SELECT ON TABLE public.%I TO popularity_reports_exporter', relation);
            END IF;
            IF EXISTS (
                SELECT FROM pg_catalog.pg_class, pg_catalog.aclexplode(relacl) AS acl
                WHERE pg_class.oid = to_regclass('public.' || relation)
                  AND acl.grantee = to_regrole('popularity_reports_catalogue')
            ) THEN
                EXECUTE format('REVOKE ALL ON TABLE public.%I FROM popularity_reports_catalogue', relation);
            END IF;
        EXCEPTION
            WHEN insufficient_privilege THEN NULL;
        END;
        IF NOT has_table_privilege('popularity_reports_exporter', 'public.' || relation, 'SELECT') THEN
            RETURN NEXT relation;
        END IF;
    END LOOP;
END
$$;

COMMENT ON FUNCTION public.popularity_reports_grant_catalogue() IS
    'Lets popularity_reports_exporter read the music-albums tables that a report is made from; returns those that it still cannot read. Safe to call again at any time.';
