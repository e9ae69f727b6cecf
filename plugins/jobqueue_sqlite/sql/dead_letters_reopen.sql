-- Mark a dead letter that was being retried as open again, unless that retry began later than :now_us: then it is somebody else's.
UPDATE dead_letters SET state = 'open', requeueing_us = NULL
WHERE job_id = :job_id AND death = :death AND state = 'requeueing' AND requeueing_us <= :now_us
