-- Take a key, or take it over.
INSERT INTO unique_keys (queue, key, job_id, until_us) VALUES (:queue, :key, :job_id, :until_us)
ON CONFLICT (queue, key) DO UPDATE SET job_id = excluded.job_id, until_us = excluded.until_us
