-- How many runs took how long, by type; the range as in rollups_range.
SELECT type, bucket, sum(count)::bigint
FROM (
    SELECT * FROM job_execution_durations WHERE span = 60 AND starts_at >= %(first_hour)s AND starts_at < %(last_hour)s
    UNION ALL
    SELECT * FROM job_execution_durations WHERE span = 1 AND starts_at >= %(first)s AND starts_at < %(first_hour)s
    UNION ALL
    SELECT * FROM job_execution_durations WHERE span = 1 AND starts_at >= %(last_hour)s AND starts_at < %(end)s
) AS durations
GROUP BY type, bucket
