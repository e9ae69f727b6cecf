-- Delete a schedule.
DELETE FROM job_schedules WHERE name = %(name)s
