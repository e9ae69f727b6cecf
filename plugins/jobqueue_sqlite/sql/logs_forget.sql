-- Drop the logs of forgotten jobs, :ids (JSON array).
DELETE FROM logs WHERE job_id IN (SELECT value FROM json_each(:ids))
