-- Dead letters, latest death first. /*filter*/ stands for the conditions that are wanted (see filters.py).
SELECT died_us, job_id, death, record, state, requeued_us, requeue_count FROM dead_letters
WHERE /*filter*/
ORDER BY died_us DESC, job_id DESC, death DESC
LIMIT :limit OFFSET :offset
