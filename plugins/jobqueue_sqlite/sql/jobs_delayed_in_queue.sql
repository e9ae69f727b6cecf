-- The scheduled and retrying jobs of a queue, those due first.
SELECT job_rows.* FROM jobs JOIN job_rows ON job_rows.number = jobs.number
WHERE jobs.queue = :queue AND jobs.due_us IS NOT NULL
ORDER BY jobs.due_us
LIMIT :limit
