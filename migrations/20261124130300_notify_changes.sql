-- Wakes the relay when a message was written and the controller when a report moved, so that neither has to
-- poll often. A notification is a hint and may be lost with its connection; a slow poll stands behind both.

CREATE FUNCTION public.popularity_reports_notify_outbox() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    PERFORM pg_catalog.pg_notify('outbox_messages', '');
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION public.popularity_reports_notify_outbox() IS
    'Notifies channel outbox_messages, without a payload, once per INSERT statement.';

CREATE TRIGGER outbox_messages_notify AFTER INSERT ON public.outbox_messages
    FOR EACH STATEMENT EXECUTE FUNCTION public.popularity_reports_notify_outbox();

CREATE FUNCTION public.popularity_reports_notify_report() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    PERFORM pg_catalog.pg_notify('reports', NEW.id::text);
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION public.popularity_reports_notify_report() IS
    'Notifies channel reports with the report''s id.';

-- Only the columns that the controller acts upon: what it writes itself (the cr_ columns) must not wake it.
CREATE TRIGGER reports_notify AFTER UPDATE OF state, attempts, relayed_at, dispatched_at ON public.reports
    FOR EACH ROW EXECUTE FUNCTION public.popularity_reports_notify_report();
