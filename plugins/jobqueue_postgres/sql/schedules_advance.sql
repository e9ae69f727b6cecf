-- Move a schedule on, if it stands where the caller has seen it.
UPDATE job_schedules SET version = version + 1, next_run = %(next_run)s, last_run = %(last_run)s, last_job_id = %(last_job_id)s
WHERE name = %(name)s AND version = %(version)s AND next_run IS NOT DISTINCT FROM %(seen)s::timestamptz
