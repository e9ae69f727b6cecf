-- The partitions that were made, oldest first.
SELECT name, starts_at, ends_at FROM jobqueue_partitions() ORDER BY starts_at
