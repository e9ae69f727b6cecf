-- rollups_largest
-- What executions add up to since the schema was made: of the :limit types that have the most. The last column says how many types there are.
SELECT
    largest.type, completed, failed, dead, cancelled, snoozed, returned, lost, duration_ms, measured.buckets, measured.counts, types
FROM (
    SELECT *, count(*) OVER () AS types, completed + failed + dead + cancelled + snoozed + returned + lost AS total
    FROM job_execution_rollups WHERE span = 0
    ORDER BY total DESC, type LIMIT %(limit)s
) AS largest
LEFT JOIN LATERAL (
    SELECT array_agg(bucket) AS buckets, array_agg(count) AS counts FROM job_execution_durations AS duration
    WHERE duration.span = 0 AND duration.starts_at = largest.starts_at AND duration.type = largest.type
) AS measured ON true
ORDER BY total DESC, largest.type
