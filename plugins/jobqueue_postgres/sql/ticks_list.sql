-- The latest ticks of a schedule, newest first.
SELECT schedule, due_at, record, claimed_at, sent FROM job_schedule_ticks WHERE schedule = %(schedule)s ORDER BY due_at DESC LIMIT %(limit)s
