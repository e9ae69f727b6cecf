-- The migrations that were applied, in order.
SELECT version, name, checksum, applied_at FROM jobqueue_migrations ORDER BY version
