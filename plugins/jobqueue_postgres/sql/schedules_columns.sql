-- The columns of a schedule as schedules.py reads them.
payload::text, payload_raw, max_retries, timeout, enabled, paused, misfire_limit, jitter, starts_at, ends_at, next_run, last_run, version, name,
expression, type, timezone, queue, priority, misfire, overlap, source, last_job_id
