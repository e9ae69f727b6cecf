-- One dead letter.
SELECT died_us, job_id, death, record, state, requeued_us, requeue_count FROM dead_letters WHERE job_id = :job_id AND death = :death
