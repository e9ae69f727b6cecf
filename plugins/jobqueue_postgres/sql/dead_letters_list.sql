-- Dead letters, latest death first: of each state the first along an index, of these the page, and only then the rows with their payloads.
-- /*filter*/ stands for the conditions that are wanted (see filters.py).
SELECT /*columns*/ FROM (
    SELECT found.died_at, found.job_id, found.death
    FROM unnest(%(states)s::text[]) AS wanted (state) CROSS JOIN LATERAL (
        SELECT letter.died_at, letter.job_id, letter.death FROM dead_letter_queue AS letter
        WHERE letter.state = wanted.state AND /*filter*/
        ORDER BY letter.died_at DESC, letter.job_id DESC, letter.death DESC
        LIMIT %(limit)s::bigint + %(offset)s::bigint
    ) AS found
    ORDER BY found.died_at DESC, found.job_id DESC, found.death DESC
    LIMIT %(limit)s OFFSET %(offset)s
) AS page CROSS JOIN LATERAL (
    SELECT * FROM dead_letter_queue AS letter WHERE letter.job_id = page.job_id AND letter.death = page.death LIMIT 1
) AS letter
ORDER BY page.died_at DESC, page.job_id DESC, page.death DESC
