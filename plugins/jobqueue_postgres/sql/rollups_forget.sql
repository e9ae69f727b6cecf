-- Forget rollups of one span before :before, oldest first.
DELETE FROM job_execution_rollups
WHERE (span, starts_at, type) IN (
    SELECT span, starts_at, type FROM job_execution_rollups WHERE span = %(span)s AND starts_at < %(before)s
    ORDER BY span, starts_at, type LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
