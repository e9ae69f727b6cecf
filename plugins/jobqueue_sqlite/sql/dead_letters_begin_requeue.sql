-- Mark an open dead letter as being retried.
UPDATE dead_letters SET state = 'requeueing', requeueing_us = :now_us WHERE job_id = :job_id AND death = :death AND state = 'open'
