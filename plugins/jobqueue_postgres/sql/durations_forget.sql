-- Forget durations of one span before :before, oldest first.
DELETE FROM job_execution_durations
WHERE (span, starts_at, type, bucket) IN (
    SELECT span, starts_at, type, bucket FROM job_execution_durations WHERE span = %(span)s AND starts_at < %(before)s
    ORDER BY span, starts_at, type, bucket LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
