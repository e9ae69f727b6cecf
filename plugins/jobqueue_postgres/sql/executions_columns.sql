-- The columns of an execution as history.py reads them.
execution.id::text, job_id::text, run, attempt, type, queue, priority, state, execution.finished_at, started_at, duration_ms, error, worker_id, created_at,
scheduled_at, max_retries, crashes, deaths, dead_reason, metadata::text
