-- Mark a dead letter that was being retried as open again.
UPDATE dead_letters SET state = 'open', requeueing_us = NULL WHERE job_id = :job_id AND death = :death AND state = 'requeueing'
