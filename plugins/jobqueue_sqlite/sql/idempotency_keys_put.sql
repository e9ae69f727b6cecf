-- Remember a key.
INSERT INTO idempotency_keys (key, fingerprint, job_id, until_us) VALUES (:key, :fingerprint, :job_id, :until_us)
ON CONFLICT (key) DO UPDATE SET fingerprint = excluded.fingerprint, job_id = excluded.job_id, until_us = excluded.until_us
