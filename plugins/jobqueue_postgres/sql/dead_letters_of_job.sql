-- The latest death of a job.
SELECT /*columns*/ FROM dead_letter_queue AS letter WHERE job_id = %(job_id)s ORDER BY death DESC LIMIT 1
