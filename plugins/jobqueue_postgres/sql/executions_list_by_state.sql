-- The same where a type, queue or state is wanted: of each state the first along an index, of these the page, and only then the rows.
SELECT /*columns*/ FROM (
    SELECT found.finished_at, found.id
    FROM unnest(%(states)s::text[]) AS wanted (state) CROSS JOIN LATERAL (
        SELECT execution.finished_at, execution.id FROM job_executions AS execution
        WHERE execution.state = wanted.state AND /*filter*/
        ORDER BY execution.finished_at DESC, execution.id DESC
        LIMIT %(limit)s::bigint + %(offset)s::bigint
    ) AS found
    ORDER BY found.finished_at DESC, found.id DESC
    LIMIT %(limit)s OFFSET %(offset)s
) AS page CROSS JOIN LATERAL (
    -- LIMIT keeps it from being a join of whole tables: a row of the page knows its partition.
    SELECT * FROM job_executions AS execution WHERE execution.finished_at = page.finished_at AND execution.id = page.id LIMIT 1
) AS execution
ORDER BY page.finished_at DESC, page.id DESC
