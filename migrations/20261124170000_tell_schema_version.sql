-- The programs' roles cannot read the books of the migrations, and need one number from them: how far the
-- schema has come. By it `operator doctor` and the programs' readiness tell an old schema from a missing right.
CREATE FUNCTION public.popularity_reports_schema_version() RETURNS bigint
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog
    AS $$
BEGIN
    RETURN (SELECT max(version) FROM public.popularity_reports_migrations WHERE success);
END
$$;

ALTER FUNCTION public.popularity_reports_schema_version() OWNER TO popularity_reports_owner;

COMMENT ON FUNCTION public.popularity_reports_schema_version() IS
    'The version of the newest migration that was applied; NULL when there is none.';
