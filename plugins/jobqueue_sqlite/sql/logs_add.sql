-- Add a line to a job's log.
INSERT INTO logs (job_id, line, record)
VALUES (:job_id, 1 + coalesce((SELECT max(line) FROM logs WHERE job_id = :job_id), 0), :record)
