-- Store dead letters, one array a column; those that are known change nothing. In one order, so that two recorders wait for each other in one
-- direction only.
INSERT INTO dead_letter_queue (
    job_id, death, died_at, type, queue, priority, state, dead_reason, error, traceback, fingerprint, payload, payload_raw, raw, metadata, unique_key,
    attempts, max_retries, run, crashes, worker_id, created_at, scheduled_at, started_at, requeued_at, requeue_count, record
)
SELECT
    job_id, death, died_at, type, queue, priority, state, dead_reason, error, traceback, fingerprint, payload::json, payload_raw, raw, metadata::json,
    unique_key, attempts, max_retries, run, crashes, worker_id, created_at, scheduled_at, started_at, requeued_at, requeue_count, record
FROM unnest(
    %(job_id)s::uuid[], %(death)s::integer[], %(died_at)s::timestamptz[], %(type)s::text[], %(queue)s::text[], %(priority)s::text[],
    %(state)s::text[], %(dead_reason)s::text[], %(error)s::text[], %(traceback)s::text[], %(fingerprint)s::text[], %(payload)s::text[],
    %(payload_raw)s::bytea[], %(raw)s::bytea[], %(metadata)s::text[], %(unique_key)s::text[], %(attempts)s::bigint[], %(max_retries)s::bigint[],
    %(run)s::bigint[], %(crashes)s::bigint[], %(worker_id)s::text[], %(created_at)s::timestamptz[], %(scheduled_at)s::timestamptz[],
    %(started_at)s::timestamptz[], %(requeued_at)s::timestamptz[], %(requeue_count)s::integer[], %(record)s::bytea[]
) AS incoming (
    job_id, death, died_at, type, queue, priority, state, dead_reason, error, traceback, fingerprint, payload, payload_raw, raw, metadata, unique_key,
    attempts, max_retries, run, crashes, worker_id, created_at, scheduled_at, started_at, requeued_at, requeue_count, record
)
ORDER BY job_id, death
ON CONFLICT (job_id, death) DO NOTHING
