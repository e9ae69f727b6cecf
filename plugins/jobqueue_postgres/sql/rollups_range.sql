-- What executions add up to by type, in a range that is made of parts: each so many rollups of one span, from :firsts to before :ends.
SELECT
    type, sum(completed)::bigint, sum(failed)::bigint, sum(dead)::bigint, sum(cancelled)::bigint, sum(snoozed)::bigint, sum(returned)::bigint,
    sum(lost)::bigint, sum(duration_ms)
FROM unnest(%(spans)s::smallint[], %(firsts)s::timestamptz[], %(ends)s::timestamptz[]) AS part (span, first, "end")
CROSS JOIN LATERAL (
    SELECT * FROM job_execution_rollups AS known WHERE known.span = part.span AND known.starts_at >= part.first AND known.starts_at < part."end"
) AS rollups
GROUP BY type ORDER BY type
