-- Write a schedule that must be there in :version.
UPDATE job_schedules SET
    version = version + 1, enabled = %(enabled)s, paused = %(paused)s, next_run = %(next_run)s, expression = %(expression)s,
    timezone = %(timezone)s, type = %(type)s, payload = %(payload)s::json, payload_raw = %(payload_raw)s, queue = %(queue)s,
    priority = %(priority)s, max_retries = %(max_retries)s, timeout = %(timeout)s, misfire = %(misfire)s, misfire_limit = %(misfire_limit)s,
    overlap = %(overlap)s, jitter = %(jitter)s, starts_at = %(starts_at)s, ends_at = %(ends_at)s, source = %(source)s, last_run = %(last_run)s,
    last_job_id = %(last_job_id)s
WHERE name = %(name)s AND version = %(version)s
