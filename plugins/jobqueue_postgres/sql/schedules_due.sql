-- Schedules that fire and whose next run is not after :now, longest due first.
SELECT /*columns*/ FROM job_schedules WHERE enabled AND NOT paused AND next_run <= %(now)s ORDER BY next_run LIMIT %(limit)s
