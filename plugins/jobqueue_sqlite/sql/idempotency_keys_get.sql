-- Which job a key made, and the fingerprint of the body it came with.
SELECT job_id, fingerprint FROM idempotency_keys WHERE key = :key AND until_us > :now_us
