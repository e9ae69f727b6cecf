-- Forget that a dead letter was refused: it has been stored.
DELETE FROM dead_letters_refused WHERE job_id = %(job_id)s AND death = %(death)s
