-- Mark a tick as sent.
UPDATE job_schedule_ticks SET sent = true WHERE schedule = %(schedule)s AND due_at = %(due_at)s AND NOT sent
