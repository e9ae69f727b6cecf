-- The columns of a dead letter as dead_letters.py reads them. The rest of what it needs is in the record.
record, payload::text, payload_raw, letter.died_at, error, traceback, fingerprint, raw, state, requeued_at, requeue_count
