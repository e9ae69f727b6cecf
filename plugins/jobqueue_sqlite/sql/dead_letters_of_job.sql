-- The latest death of a job.
SELECT died_us, job_id, death, record, state, requeued_us, requeue_count FROM dead_letters WHERE job_id = :job_id ORDER BY death DESC LIMIT 1
