-- Store a dead letter; one that is known changes nothing.
INSERT INTO dead_letters (job_id, death, died_us, type, queue, fingerprint, state, requeued_us, requeue_count, record)
VALUES (:job_id, :death, :died_us, :type, :queue, :fingerprint, :state, :requeued_us, :requeue_count, :record)
ON CONFLICT (job_id, death) DO NOTHING
