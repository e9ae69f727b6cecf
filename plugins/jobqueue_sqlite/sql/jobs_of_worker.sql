-- Jobs that a worker holds. Walks the leased jobs only, in an index that has the worker.
SELECT job_rows.* FROM jobs INDEXED BY jobs_leased JOIN job_rows ON job_rows.number = jobs.number
WHERE jobs.lease_until_us IS NOT NULL AND jobs.worker_id = :worker_id
LIMIT :limit
