-- How long the latest reports took, which is what a user with too many unfinished ones is told to wait for.
CREATE INDEX reports_completed ON public.reports (finished_at)
    WHERE state = 'Completed';
