-- Each program's rights, column by column, as the statements in crates/store need them. Together with the
-- CHECKs this keeps the programs' parts apart: only an exporter can begin or complete a report, only the
-- operator can dispatch or fail one, and the API can only add one that is Pending.
REVOKE ALL ON public.reports, public.outbox_messages FROM popularity_reports_app;

GRANT SELECT (
    id, requested_by, parameters, state, attempts, artifact_container, artifact_blob, artifact_bytes,
    artifact_rows, artifact_sha256, artifact_content_type, artifact_schema, data_as_of, failure_reason,
    failure_message, cr_namespace, cr_name, cr_uid, cr_deleted_at, traceparent, created_at, relayed_at,
    dispatched_at, started_at, finished_at, expires_at, updated_at
) ON public.reports TO popularity_reports_api, popularity_reports_operator, popularity_reports_exporter;

GRANT
    SELECT (idempotency_key, idempotency_fingerprint),
    INSERT (
        id, requested_by, parameters, idempotency_key, idempotency_fingerprint, traceparent, cr_namespace,
        cr_name, created_at, updated_at, expires_at
    )
    ON public.reports TO popularity_reports_api;

GRANT
    SELECT (file_retained),
    INSERT (
        id, parameters, traceparent, cr_namespace, cr_name, cr_uid, created_at, updated_at, expires_at
    ),
    UPDATE (
        state, failure_reason, failure_message, cr_namespace, cr_name, cr_uid, cr_deleted_at, file_retained,
        relayed_at, dispatched_at, finished_at, updated_at
    )
    ON public.reports TO popularity_reports_operator;

GRANT UPDATE (
    state, attempts, artifact_container, artifact_blob, artifact_bytes, artifact_rows, artifact_sha256,
    artifact_content_type, artifact_schema, data_as_of, started_at, finished_at, updated_at
) ON public.reports TO popularity_reports_exporter;

GRANT INSERT (
    id, aggregatetype, aggregateid, type, payload, traceparent, created_at, available_at
) ON public.outbox_messages TO popularity_reports_api, popularity_reports_operator;

-- The relay: claims, marks, prunes.
GRANT
    SELECT (
        id, aggregateid, type, payload, traceparent, created_at, available_at, attempts, processed_at
    ),
    UPDATE (attempts, last_error, available_at, processed_at),
    DELETE
    ON public.outbox_messages TO popularity_reports_operator;
