-- Mark an open dead letter as discarded.
UPDATE dead_letter_queue SET state = 'discarded' WHERE job_id = %(job_id)s AND death = %(death)s AND state = 'open'
