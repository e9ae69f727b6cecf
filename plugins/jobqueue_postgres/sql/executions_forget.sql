-- Forget executions that finished before :before, of those that are in no partition.
DELETE FROM job_executions_default
WHERE (finished_at, id) IN (
    SELECT finished_at, id FROM job_executions_default WHERE finished_at < %(before)s ORDER BY finished_at, id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
