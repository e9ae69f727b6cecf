-- Keep the latest :keep ticks of a schedule, and every one that was not sent.
DELETE FROM job_schedule_ticks
WHERE schedule = %(schedule)s AND sent
    AND due_at < (SELECT due_at FROM job_schedule_ticks WHERE schedule = %(schedule)s ORDER BY due_at DESC LIMIT 1 OFFSET %(keep)s - 1)
