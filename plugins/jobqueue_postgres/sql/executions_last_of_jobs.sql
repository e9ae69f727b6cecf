-- For each of the jobs :job_ids the last execution that finished from :since (one for each) on and before :finished_until; no row where there is none.
-- :earliest of these moments: by it partitions are passed over before anything is looked up.
SELECT /*columns*/, wanted.number
FROM unnest(%(job_ids)s::uuid[], %(since)s::timestamptz[]) WITH ORDINALITY AS wanted (wanted_id, since, number) CROSS JOIN LATERAL (
    SELECT * FROM (
        SELECT * FROM job_executions AS execution
        WHERE execution.job_id = wanted.wanted_id AND execution.finished_at >= wanted.since AND execution.finished_at >= %(earliest)s
        -- A fence. Without statistics a span of time is taken for as rare as the id of a job: all that finished in it would be read, and in order.
        OFFSET 0
    ) AS known
    WHERE known.finished_at < %(finished_until)s
    ORDER BY known.finished_at DESC, known.id DESC
    LIMIT 1
) AS execution
