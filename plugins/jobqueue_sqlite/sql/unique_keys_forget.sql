-- Drop keys whose unique_for has passed and whose job has ended; run after unique_keys_lapse.
DELETE FROM unique_keys
WHERE (queue, key) IN (SELECT queue, key FROM unique_keys WHERE until_us <= :now_us LIMIT :limit)
