-- The largest groups of /*sizes*/, each with its first and last death; the last one is its example.
SELECT largest.fingerprint, largest.size, first.died_at, last.died_at, last.type, last.job_id::text, last.error
FROM (
    SELECT sizes.fingerprint, sizes.size FROM (/*sizes*/) AS sizes ORDER BY sizes.size DESC, sizes.fingerprint LIMIT %(limit)s
) AS largest
CROSS JOIN LATERAL (
    SELECT min(of_state.died_at) AS died_at FROM unnest(%(states)s::text[]) AS wanted (state) CROSS JOIN LATERAL (
        SELECT letter.died_at FROM dead_letter_queue AS letter
        WHERE letter.state = wanted.state AND letter.fingerprint = largest.fingerprint AND /*filter*/
        ORDER BY letter.died_at LIMIT 1
    ) AS of_state
) AS first
CROSS JOIN LATERAL (
    SELECT of_state.* FROM unnest(%(states)s::text[]) AS wanted (state) CROSS JOIN LATERAL (
        SELECT letter.died_at, letter.type, letter.job_id, letter.error FROM dead_letter_queue AS letter
        WHERE letter.state = wanted.state AND letter.fingerprint = largest.fingerprint AND /*filter*/
        ORDER BY letter.died_at DESC LIMIT 1
    ) AS of_state
    ORDER BY of_state.died_at DESC LIMIT 1
) AS last
ORDER BY largest.size DESC, largest.fingerprint
