-- Hold the jobs of :numbers (JSON array) under the lease :lease_no. The record stays as it was: only columns change.
UPDATE jobs
SET state = 'processing', ready = NULL, ready_since_us = NULL, expires_us = NULL, lease_no = :lease_no, lease_until_us = :lease_until_us,
    lease_us = :lease_us, worker_id = :worker_id, started_us = :started_us
WHERE number IN (SELECT value FROM json_each(:numbers))
