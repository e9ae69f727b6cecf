-- All executions of one job, by run.
SELECT /*columns*/ FROM job_executions AS execution WHERE job_id = %(job_id)s ORDER BY run, finished_at
