-- Forget dead letters of one state that died before :before.
DELETE FROM dead_letter_queue
WHERE (job_id, death) IN (
    SELECT job_id, death FROM dead_letter_queue WHERE state = %(state)s AND died_at < %(before)s
    ORDER BY died_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
