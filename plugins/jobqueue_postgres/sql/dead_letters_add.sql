-- Store a dead letter; one that is known changes nothing.
INSERT INTO dead_letter_queue (
    job_id, death, died_at, type, queue, priority, state, dead_reason, error, traceback, fingerprint, payload, payload_raw, raw, metadata, unique_key,
    attempts, max_retries, run, crashes, worker_id, created_at, scheduled_at, started_at, requeued_at, requeue_count, record
) VALUES (
    %(job_id)s, %(death)s, %(died_at)s, %(type)s, %(queue)s, %(priority)s, %(state)s, %(dead_reason)s, %(error)s, %(traceback)s, %(fingerprint)s,
    %(payload)s::json, %(payload_raw)s, %(raw)s, %(metadata)s::json, %(unique_key)s, %(attempts)s, %(max_retries)s, %(run)s, %(crashes)s,
    %(worker_id)s, %(created_at)s, %(scheduled_at)s, %(started_at)s, %(requeued_at)s, %(requeue_count)s, %(record)s
)
ON CONFLICT (job_id, death) DO NOTHING
