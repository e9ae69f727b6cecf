-- The same where a fingerprint is wanted and more: of each of /*kinds*/ the first along its index.
SELECT /*columns*/ FROM (
    SELECT found.died_at, found.job_id, found.death
    FROM (/*kinds*/) AS kind CROSS JOIN LATERAL (
        SELECT letter.died_at, letter.job_id, letter.death FROM dead_letter_queue AS letter
        WHERE letter.state = kind.state AND letter.fingerprint = kind.fingerprint AND letter.type = kind.type AND letter.queue = kind.queue
            AND /*filter*/
        ORDER BY letter.died_at DESC, letter.job_id DESC, letter.death DESC
        LIMIT %(limit)s::bigint + %(offset)s::bigint
    ) AS found
    ORDER BY found.died_at DESC, found.job_id DESC, found.death DESC
    LIMIT %(limit)s OFFSET %(offset)s
) AS page JOIN dead_letter_queue AS letter USING (died_at, job_id, death)
ORDER BY died_at DESC, job_id DESC, death DESC
