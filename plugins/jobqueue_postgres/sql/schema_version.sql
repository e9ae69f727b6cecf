-- The latest migration of the schema, and the oldest version whose release can work on it.
SELECT version, readable_from FROM jobqueue_migrations ORDER BY version DESC LIMIT 1
