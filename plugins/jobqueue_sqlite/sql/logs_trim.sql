-- Keep the latest :keep lines of a job's log.
DELETE FROM logs WHERE job_id = :job_id AND line <= (SELECT max(line) FROM logs WHERE job_id = :job_id) - :keep
