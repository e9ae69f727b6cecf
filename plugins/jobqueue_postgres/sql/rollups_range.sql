-- What executions add up to by type: minutes from :first and hours from :first_hour up to :last_hour, minutes from there up to :end.
SELECT
    type, sum(completed)::bigint, sum(failed)::bigint, sum(dead)::bigint, sum(cancelled)::bigint, sum(snoozed)::bigint, sum(returned)::bigint,
    sum(lost)::bigint, sum(duration_ms)
FROM (
    SELECT * FROM job_execution_rollups WHERE span = 60 AND starts_at >= %(first_hour)s AND starts_at < %(last_hour)s
    UNION ALL
    SELECT * FROM job_execution_rollups WHERE span = 1 AND starts_at >= %(first)s AND starts_at < %(first_hour)s
    UNION ALL
    SELECT * FROM job_execution_rollups WHERE span = 1 AND starts_at >= %(last_hour)s AND starts_at < %(end)s
) AS rollups
GROUP BY type ORDER BY type
