-- Mark an open dead letter as discarded.
UPDATE dead_letters SET state = 'discarded' WHERE job_id = :job_id AND death = :death AND state = 'open'
