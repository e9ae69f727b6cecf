-- All executions of one job, by run.
SELECT record FROM executions WHERE job_id = :job_id ORDER BY run, finished_us
