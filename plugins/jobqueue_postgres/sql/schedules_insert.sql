-- Write a schedule that must not be there.
INSERT INTO job_schedules (
    name, version, enabled, paused, next_run, expression, timezone, type, payload, payload_raw, queue, priority, max_retries, timeout, misfire,
    misfire_limit, overlap, jitter, starts_at, ends_at, source, last_run, last_job_id
) VALUES (
    %(name)s, %(version)s, %(enabled)s, %(paused)s, %(next_run)s, %(expression)s, %(timezone)s, %(type)s, %(payload)s::json, %(payload_raw)s, %(queue)s,
    %(priority)s, %(max_retries)s, %(timeout)s, %(misfire)s, %(misfire_limit)s, %(overlap)s, %(jitter)s, %(starts_at)s, %(ends_at)s, %(source)s,
    %(last_run)s, %(last_job_id)s
)
ON CONFLICT (name) DO NOTHING
