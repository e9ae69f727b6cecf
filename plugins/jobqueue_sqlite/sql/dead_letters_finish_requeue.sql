-- Mark a dead letter that was being retried as requeued.
UPDATE dead_letters SET state = 'requeued', requeueing_us = NULL, requeued_us = :now_us, requeue_count = requeue_count + 1
WHERE job_id = :job_id AND death = :death AND state = 'requeueing'
