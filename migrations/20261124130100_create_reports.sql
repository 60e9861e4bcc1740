-- One row per report. The row is the truth: custom resource, message, Job and blob follow from it.
-- The CHECKs tie every column to the state, so that a report that says Completed has its file's facts and
-- one that says Failed has its reason, whoever wrote the row.
CREATE TABLE public.reports (
    id uuid PRIMARY KEY,
    requested_by uuid,
    parameters jsonb NOT NULL,
    state text NOT NULL DEFAULT 'Pending',
    attempts integer NOT NULL DEFAULT 0,

    artifact_container text,
    artifact_blob text,
    artifact_bytes bigint,
    artifact_rows bigint,
    artifact_sha256 text,
    artifact_content_type text,
    artifact_schema text,
    data_as_of timestamptz,

    failure_reason text,
    failure_message text,

    cr_namespace text NOT NULL,
    cr_name text NOT NULL,
    cr_uid text,
    cr_deleted_at timestamptz,

    idempotency_key text,
    idempotency_fingerprint text,
    traceparent text,

    created_at timestamptz NOT NULL,
    relayed_at timestamptz,
    dispatched_at timestamptz,
    started_at timestamptz,
    finished_at timestamptz,
    expires_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,

    CONSTRAINT reports_state_is_known
        CHECK (state IN ('Pending', 'Processing', 'Completed', 'Failed')),
    CONSTRAINT reports_parameters_are_an_object
        CHECK (jsonb_typeof(parameters) = 'object'),
    CONSTRAINT reports_attempts_are_counted_from_the_first_start
        CHECK (attempts >= 0 AND (attempts > 0) = (started_at IS NOT NULL)),
    CONSTRAINT reports_pending_has_not_started
        CHECK (state <> 'Pending' OR attempts = 0),
    CONSTRAINT reports_processing_and_completed_have_started
        CHECK (state NOT IN ('Processing', 'Completed') OR attempts > 0),
    CONSTRAINT reports_terminal_states_have_finished
        CHECK ((state IN ('Completed', 'Failed')) = (finished_at IS NOT NULL)),
    CONSTRAINT reports_completed_has_its_artifact
        CHECK (
            num_nonnulls(
                artifact_container, artifact_blob, artifact_bytes, artifact_rows, artifact_sha256,
                artifact_content_type, artifact_schema, data_as_of
            ) = CASE state WHEN 'Completed' THEN 8 ELSE 0 END
        ),
    CONSTRAINT reports_artifact_is_well_formed
        CHECK (artifact_bytes >= 0 AND artifact_rows >= 0 AND artifact_sha256 ~ '^[0-9a-f]{64}$'),
    CONSTRAINT reports_failed_has_its_reason
        CHECK (num_nonnulls(failure_reason, failure_message) = CASE state WHEN 'Failed' THEN 2 ELSE 0 END),
    CONSTRAINT reports_failure_reason_is_a_word
        CHECK (failure_reason ~ '^[A-Z][A-Za-z]+$'),
    CONSTRAINT reports_dispatched_was_relayed
        CHECK (dispatched_at IS NULL OR relayed_at IS NOT NULL),
    CONSTRAINT reports_deleted_cr_has_its_uid
        CHECK (cr_deleted_at IS NULL OR cr_uid IS NOT NULL),
    CONSTRAINT reports_idempotency_key_has_fingerprint_and_owner
        CHECK (
            (idempotency_key IS NULL) = (idempotency_fingerprint IS NULL)
            AND (idempotency_key IS NULL OR requested_by IS NOT NULL)
        ),
    CONSTRAINT reports_idempotency_key_is_short
        CHECK (char_length(idempotency_key) BETWEEN 1 AND 255),
    CONSTRAINT reports_expire_after_creation
        CHECK (expires_at > created_at)
);

COMMENT ON TABLE public.reports IS
    'Popularity reports: one row each, kept when the file and the custom resource are gone.';
COMMENT ON COLUMN public.reports.id IS
    'UUID version 7 when REST made the report; the custom resource''s uid when that came first.';
COMMENT ON COLUMN public.reports.requested_by IS
    'The user who asked over REST; NULL when the report came as a custom resource.';
COMMENT ON COLUMN public.reports.parameters IS
    'What was asked, defaults included, in the names of the REST body.';
COMMENT ON COLUMN public.reports.state IS
    'Pending -> Processing -> Completed | Failed, or Pending -> Failed. The last two are final.';
COMMENT ON COLUMN public.reports.attempts IS
    'How many exporters have begun.';
COMMENT ON COLUMN public.reports.artifact_container IS
    'The blob container. With artifact_blob it gives the URL; no signed URL is ever stored.';
COMMENT ON COLUMN public.reports.artifact_blob IS
    'The blob''s name within the container.';
COMMENT ON COLUMN public.reports.artifact_bytes IS
    'Size in bytes as stored, after compression.';
COMMENT ON COLUMN public.reports.artifact_rows IS
    'Data rows of the file, without its header.';
COMMENT ON COLUMN public.reports.artifact_sha256 IS
    'SHA-256 of the stored bytes, 64 lower-case hexadecimal digits.';
COMMENT ON COLUMN public.reports.artifact_content_type IS
    'The media type, as served.';
COMMENT ON COLUMN public.reports.artifact_schema IS
    'The schema of the file, such as popularity.v1.';
COMMENT ON COLUMN public.reports.data_as_of IS
    'The moment of the one snapshot of the catalogue that the file was read from.';
COMMENT ON COLUMN public.reports.failure_reason IS
    'A word of the closed list in crates/domain, such as DeadlineExceeded.';
COMMENT ON COLUMN public.reports.failure_message IS
    'What was wrong and what to do about it, for a person. Never a secret.';
COMMENT ON COLUMN public.reports.cr_namespace IS
    'Namespace of the PopularityReport that stands for the report, or is to be made for it.';
COMMENT ON COLUMN public.reports.cr_name IS
    'Its name.';
COMMENT ON COLUMN public.reports.cr_uid IS
    'Its uid, as soon as one is known: a new object of the same name is another one.';
COMMENT ON COLUMN public.reports.cr_deleted_at IS
    'When that object was deleted; it is not made again.';
COMMENT ON COLUMN public.reports.idempotency_key IS
    'The Idempotency-Key of the request; unique per requester.';
COMMENT ON COLUMN public.reports.idempotency_fingerprint IS
    'SHA-256 of the request that came with the key, to tell a retry from a reuse.';
COMMENT ON COLUMN public.reports.traceparent IS
    'W3C trace context of the request.';
COMMENT ON COLUMN public.reports.created_at IS
    'When it was accepted.';
COMMENT ON COLUMN public.reports.relayed_at IS
    'When Service Bus had accepted its message; kept here because outbox rows are pruned.';
COMMENT ON COLUMN public.reports.dispatched_at IS
    'When the consumer took its message.';
COMMENT ON COLUMN public.reports.started_at IS
    'When the first exporter began.';
COMMENT ON COLUMN public.reports.finished_at IS
    'When the row became Completed or Failed.';
COMMENT ON COLUMN public.reports.expires_at IS
    'After this the file and the custom resource may be gone.';
COMMENT ON COLUMN public.reports.updated_at IS
    'When the row last changed.';

-- One report per requester and key, also when the same request comes fifty times at once.
CREATE UNIQUE INDEX reports_idempotency_key ON public.reports (requested_by, idempotency_key)
    WHERE idempotency_key IS NOT NULL;

-- How many unfinished reports a user has.
CREATE INDEX reports_unfinished_by_requester ON public.reports (requested_by)
    WHERE state IN ('Pending', 'Processing');

-- The queue for a place to run: oldest first.
CREATE INDEX reports_waiting ON public.reports (created_at, id)
    WHERE state = 'Pending' AND dispatched_at IS NOT NULL;

-- What the sweep walks, in pages by id.
CREATE INDEX reports_to_sweep ON public.reports (id)
    WHERE cr_deleted_at IS NULL AND (cr_uid IS NULL OR state IN ('Pending', 'Processing'));

-- No DELETE: the row outlives its file and its custom resource.
GRANT SELECT, INSERT, UPDATE ON public.reports TO popularity_reports_app;
