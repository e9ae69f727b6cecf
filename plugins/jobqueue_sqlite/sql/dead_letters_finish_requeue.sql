-- Mark a dead letter that was being retried as requeued, unless that retry began later than :now_us: then it is somebody else's.
UPDATE dead_letters SET state = 'requeued', requeueing_us = NULL, requeued_us = :now_us, requeue_count = requeue_count + 1
WHERE job_id = :job_id AND death = :death AND state = 'requeueing' AND requeueing_us <= :now_us
