-- What executions add up to by type from :first to before :end: quarters of a day in the middle, hours and then minutes towards both ends.
SELECT
    type, sum(completed)::bigint, sum(failed)::bigint, sum(dead)::bigint, sum(cancelled)::bigint, sum(snoozed)::bigint, sum(returned)::bigint,
    sum(lost)::bigint, sum(duration_ms)
FROM (
    SELECT * FROM job_execution_rollups WHERE span = 360 AND starts_at >= %(middle_first)s AND starts_at < %(middle_end)s
    UNION ALL
    SELECT * FROM job_execution_rollups WHERE span = 60 AND starts_at >= %(hours_first)s AND starts_at < %(middle_first)s
    UNION ALL
    SELECT * FROM job_execution_rollups WHERE span = 60 AND starts_at >= %(middle_end)s AND starts_at < %(hours_end)s
    UNION ALL
    SELECT * FROM job_execution_rollups WHERE span = 1 AND starts_at >= %(first)s AND starts_at < %(hours_first)s
    UNION ALL
    SELECT * FROM job_execution_rollups WHERE span = 1 AND starts_at >= %(hours_end)s AND starts_at < %(end)s
) AS rollups
GROUP BY type ORDER BY type
