-- Make a due job available.
UPDATE jobs SET state = 'queued', due_us = NULL, ready = :ready, ready_since_us = :now_us WHERE number = :number
