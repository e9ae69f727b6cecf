-- How many runs took how long, by type; the range as in rollups_range.
SELECT
    type, bucket, sum(count)::bigint
FROM unnest(%(spans)s::smallint[], %(firsts)s::timestamptz[], %(ends)s::timestamptz[]) AS part (span, first, "end")
CROSS JOIN LATERAL (
    SELECT * FROM job_execution_durations AS known WHERE known.span = part.span AND known.starts_at >= part.first AND known.starts_at < part."end"
) AS durations
GROUP BY type, bucket
