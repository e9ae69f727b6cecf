-- Forget dead letters that are dealt with and died before :before. Those that somebody else is at are left to the next time.
WITH found AS MATERIALIZED (
    SELECT of_state.job_id, of_state.death FROM unnest(%(states)s::text[]) AS wanted (state) CROSS JOIN LATERAL (
        SELECT letter.job_id, letter.death FROM dead_letter_queue AS letter
        WHERE letter.state = wanted.state AND letter.died_at < %(before)s
        ORDER BY letter.died_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    ) AS of_state
    LIMIT %(limit)s
)
DELETE FROM dead_letter_queue AS letter USING found WHERE letter.job_id = found.job_id AND letter.death = found.death
