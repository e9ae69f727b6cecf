-- Dead letters whose retry began before :before_us and was not finished.
SELECT died_us, job_id, death, record, state, requeued_us, requeue_count FROM dead_letters INDEXED BY dead_letters_requeueing
WHERE state = 'requeueing' AND requeueing_us < :before_us
ORDER BY requeueing_us
LIMIT :limit
