-- Put a dead letter aside that was refused; one that is there changes nothing.
INSERT INTO dead_letters_refused (job_id, death, died_at, problem, record)
VALUES (%(job_id)s, %(death)s, %(died_at)s, %(problem)s, %(record)s)
ON CONFLICT (job_id, death) DO NOTHING
