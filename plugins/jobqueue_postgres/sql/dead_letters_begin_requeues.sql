-- Mark those of the given dead letters that are open as being retried since :now; says which. Locked in one order, so that two callers never
-- wait for each other crosswise.
WITH wanted AS MATERIALIZED (
    SELECT letter.job_id, letter.death FROM dead_letter_queue AS letter
    JOIN (SELECT DISTINCT * FROM unnest(%(job_ids)s::uuid[], %(deaths)s::integer[]) AS given (job_id, death)) AS given USING (job_id, death)
    WHERE letter.state = 'open'
    ORDER BY letter.job_id, letter.death FOR UPDATE OF letter
)
UPDATE dead_letter_queue AS letter SET state = 'requeueing', requeueing_at = %(now)s
FROM wanted WHERE letter.job_id = wanted.job_id AND letter.death = wanted.death AND letter.state = 'open'
RETURNING letter.job_id, letter.death
