-- Mark those of the given dead letters that are being retried as requeued; not those whose retry began later than :now, by somebody else.
WITH wanted AS MATERIALIZED (
    SELECT letter.job_id, letter.death FROM dead_letter_queue AS letter
    JOIN (SELECT DISTINCT * FROM unnest(%(job_ids)s::uuid[], %(deaths)s::integer[]) AS given (job_id, death)) AS given USING (job_id, death)
    WHERE letter.state = 'requeueing' AND letter.requeueing_at <= %(now)s
    ORDER BY letter.job_id, letter.death FOR UPDATE OF letter
)
UPDATE dead_letter_queue AS letter
SET state = 'requeued', requeueing_at = NULL, requeued_at = %(now)s, requeue_count = letter.requeue_count + 1
FROM wanted WHERE letter.job_id = wanted.job_id AND letter.death = wanted.death AND letter.state = 'requeueing' AND letter.requeueing_at <= %(now)s
