-- The sweep deletes the files of deleted reports that came back, and must leave alone those that were to
-- stay: the custom resource that said so (deletionPolicy: Retain) is gone by then.
ALTER TABLE public.reports
    ADD COLUMN file_retained boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT reports_only_a_finished_file_is_retained CHECK (NOT file_retained OR state = 'Completed');

COMMENT ON COLUMN public.reports.file_retained IS
    'Whether the file stays although the custom resource was deleted (its deletionPolicy was Retain).';
