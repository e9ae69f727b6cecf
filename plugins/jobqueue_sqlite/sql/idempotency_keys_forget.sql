-- Drop keys past their time.
DELETE FROM idempotency_keys WHERE key IN (SELECT key FROM idempotency_keys WHERE until_us <= :now_us LIMIT :limit)
