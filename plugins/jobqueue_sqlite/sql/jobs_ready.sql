-- The jobs of a queue that wait for a worker, most urgent first; suspects and others apart, so that neither has to be stepped over.
SELECT job_rows.*, jobs.ready
FROM jobs INDEXED BY jobs_ready JOIN job_rows ON job_rows.number = jobs.number
WHERE jobs.queue = :queue AND jobs.suspect = :suspect AND jobs.ready IS NOT NULL
ORDER BY jobs.priority, jobs.ready
LIMIT :limit
