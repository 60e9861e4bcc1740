-- What is ours belongs to the owners' group and not to the login that happened to migrate first, so that any
-- member of the group can migrate next. The books of the migrations are made by the migrator itself.
ALTER TABLE public.reports OWNER TO popularity_reports_owner;
ALTER TABLE public.outbox_messages OWNER TO popularity_reports_owner;
ALTER TABLE IF EXISTS public.popularity_reports_migrations OWNER TO popularity_reports_owner;
ALTER FUNCTION public.popularity_reports_notify_outbox() OWNER TO popularity_reports_owner;
ALTER FUNCTION public.popularity_reports_notify_report() OWNER TO popularity_reports_owner;
ALTER FUNCTION public.popularity_reports_grant_catalogue() OWNER TO popularity_reports_owner;
