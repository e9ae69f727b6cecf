-- One schedule.
SELECT /*columns*/ FROM job_schedules WHERE name = %(name)s
