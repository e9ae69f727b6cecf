-- Whether the schema has been migrated at all.
SELECT to_regclass('jobqueue_migrations') IS NOT NULL
