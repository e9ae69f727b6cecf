-- All schedules, by name.
SELECT /*columns*/ FROM job_schedules ORDER BY name
