-- One group role for each program and one that owns what is ours, in the place of popularity_reports_app and
-- _catalogue: a right is then given to who needs it, and the owner of the tables is no login that may be
-- replaced one day. Roles belong to the whole server: another database of it may have made them already, or
-- may be making them at this moment, and both races end in one of the two errors that are passed over here.
-- An administrator may run this file first, so that the migrating login needs no CREATEROLE (README.md).
DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY[
        'popularity_reports_owner', 'popularity_reports_api', 'popularity_reports_operator',
        'popularity_reports_exporter'
    ] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = role_name) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
            EXCEPTION
                WHEN duplicate_object OR unique_violation THEN NULL;
            END;
        END IF;
    END LOOP;
    -- Whoever made the role may do so; a login that was given its membership has nothing left to do here.
    IF NOT pg_has_role('popularity_reports_owner', 'MEMBER') THEN
        BEGIN
            EXECUTE format('GRANT popularity_reports_owner TO %I', current_user);
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN NULL;
        END;
    END IF;
    IF NOT has_schema_privilege('popularity_reports_owner', 'public', 'CREATE') THEN
        GRANT USAGE, CREATE ON SCHEMA public TO popularity_reports_owner;
    END IF;
    IF NOT (
        has_schema_privilege('popularity_reports_api', 'public', 'USAGE')
        AND has_schema_privilege('popularity_reports_operator', 'public', 'USAGE')
        AND has_schema_privilege('popularity_reports_exporter', 'public', 'USAGE')
    ) THEN
        GRANT USAGE ON SCHEMA public
            TO popularity_reports_api, popularity_reports_operator, popularity_reports_exporter;
    END IF;
END
$$;
