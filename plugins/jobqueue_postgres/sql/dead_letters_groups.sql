-- The largest groups with one fingerprint, by /*sizes*/, each with its first and its last death among /*kinds*/; the last one is its example.
WITH kind AS MATERIALIZED (
    /*kinds*/
), largest AS (
    SELECT fingerprint, sum(count)::bigint AS size FROM (/*sizes*/) AS sized GROUP BY fingerprint ORDER BY size DESC, fingerprint LIMIT %(limit)s
), ends AS (
    SELECT DISTINCT ON (largest.size, largest.fingerprint)
        largest.fingerprint, largest.size, min(first.died_at) OVER (PARTITION BY largest.fingerprint) AS first_died_at, last.*
    FROM largest JOIN kind USING (fingerprint)
    CROSS JOIN LATERAL (
        SELECT letter.died_at FROM dead_letter_queue AS letter
        WHERE letter.state = kind.state AND letter.fingerprint = kind.fingerprint AND letter.type = kind.type AND letter.queue = kind.queue
            AND /*filter*/
        ORDER BY letter.died_at, letter.job_id, letter.death LIMIT 1
    ) AS first
    CROSS JOIN LATERAL (
        SELECT letter.died_at, letter.job_id, letter.death FROM dead_letter_queue AS letter
        WHERE letter.state = kind.state AND letter.fingerprint = kind.fingerprint AND letter.type = kind.type AND letter.queue = kind.queue
            AND /*filter*/
        ORDER BY letter.died_at DESC, letter.job_id DESC, letter.death DESC LIMIT 1
    ) AS last
    ORDER BY largest.size DESC, largest.fingerprint, last.died_at DESC, last.job_id DESC, last.death DESC
)
SELECT ends.fingerprint, ends.size, ends.first_died_at, ends.died_at, example.record, example.error
FROM ends JOIN dead_letter_queue AS example USING (job_id, death)
ORDER BY ends.size DESC, ends.fingerprint
