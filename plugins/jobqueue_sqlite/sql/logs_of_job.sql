-- A job's log, oldest line first.
SELECT record FROM logs WHERE job_id = :job_id ORDER BY line
