-- Two group roles, so that the logins of a deployment get their rights by membership and a right is written
-- down once. Roles belong to the whole server: another database of it may have made them already, or may be
-- making them at this moment, and both races end in one of the two errors that are passed over here.
DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['popularity_reports_app', 'popularity_reports_catalogue'] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = role_name) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
            EXCEPTION
                WHEN duplicate_object OR unique_violation THEN NULL;
            END;
        END IF;
    END LOOP;
END
$$;

GRANT USAGE ON SCHEMA public TO popularity_reports_app, popularity_reports_catalogue;
