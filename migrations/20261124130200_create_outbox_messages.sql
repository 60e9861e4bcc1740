-- The transactional outbox: written together with the report, sent by the relay, marked when the broker has
-- accepted it. The column names are those that Debezium's outbox event router reads
-- (https://debezium.io/documentation/reference/stable/transformations/outbox-event-router.html), so that a
-- change-data-capture pipeline could take the relay's place without a migration.
CREATE TABLE public.outbox_messages (
    id uuid PRIMARY KEY,
    aggregatetype text NOT NULL,
    aggregateid uuid NOT NULL,
    type text NOT NULL,
    payload jsonb NOT NULL,
    traceparent text,
    created_at timestamptz NOT NULL,
    available_at timestamptz NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    last_error text,
    processed_at timestamptz,

    CONSTRAINT outbox_messages_attempts_are_counted CHECK (attempts >= 0),
    CONSTRAINT outbox_messages_payload_is_an_object CHECK (jsonb_typeof(payload) = 'object')
);

COMMENT ON TABLE public.outbox_messages IS
    'Messages on their way to Service Bus. Processed rows are pruned; unprocessed ones never.';
COMMENT ON COLUMN public.outbox_messages.id IS
    'UUID version 7; it is the MessageId, so that a message sent twice is one to the broker.';
COMMENT ON COLUMN public.outbox_messages.aggregatetype IS
    'The kind of thing that the message is about: popularity-report.';
COMMENT ON COLUMN public.outbox_messages.aggregateid IS
    'The report''s id. No foreign key: the outbox is a log, not a part of the report.';
COMMENT ON COLUMN public.outbox_messages.type IS
    'The event: ExportRequested.';
COMMENT ON COLUMN public.outbox_messages.payload IS
    'The body as it is sent, JSON with a version.';
COMMENT ON COLUMN public.outbox_messages.traceparent IS
    'W3C trace context, sent as an application property.';
COMMENT ON COLUMN public.outbox_messages.created_at IS
    'When it was written.';
COMMENT ON COLUMN public.outbox_messages.available_at IS
    'Not to be sent before this moment; moved on after each failure.';
COMMENT ON COLUMN public.outbox_messages.attempts IS
    'How often sending it has failed.';
COMMENT ON COLUMN public.outbox_messages.last_error IS
    'What the last failure said. Never a secret.';
COMMENT ON COLUMN public.outbox_messages.processed_at IS
    'When the broker had accepted it.';

-- Claiming reads the first rows of it; the backlog gauges read all of it and no row of the table.
CREATE INDEX outbox_messages_unprocessed ON public.outbox_messages (available_at, id) INCLUDE (created_at)
    WHERE processed_at IS NULL;

-- Pruning reads the oldest rows of it.
CREATE INDEX outbox_messages_processed ON public.outbox_messages (processed_at)
    WHERE processed_at IS NOT NULL;

GRANT SELECT, INSERT, UPDATE, DELETE ON public.outbox_messages TO popularity_reports_app;
