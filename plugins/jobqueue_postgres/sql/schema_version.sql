-- The latest migration of the schema, and the oldest version whose release can work on all that is newer than :needed.
SELECT max(version), coalesce(max(readable_from) FILTER (WHERE version > %(needed)s), 0) FROM jobqueue_migrations
