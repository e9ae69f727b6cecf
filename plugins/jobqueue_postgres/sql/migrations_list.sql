-- The migrations that were applied, in order.
SELECT version, name, checksum, readable_from, applied_at FROM jobqueue_migrations ORDER BY version
