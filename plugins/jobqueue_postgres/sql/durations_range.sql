-- How many runs took how long, by type; the range as in rollups_range.
SELECT
    type, bucket, sum(count)::bigint
FROM (
    SELECT * FROM job_execution_durations WHERE span = 360 AND starts_at >= %(middle_first)s AND starts_at < %(middle_end)s
    UNION ALL
    SELECT * FROM job_execution_durations WHERE span = 60 AND starts_at >= %(hours_first)s AND starts_at < %(middle_first)s
    UNION ALL
    SELECT * FROM job_execution_durations WHERE span = 60 AND starts_at >= %(middle_end)s AND starts_at < %(hours_end)s
    UNION ALL
    SELECT * FROM job_execution_durations WHERE span = 1 AND starts_at >= %(first)s AND starts_at < %(hours_first)s
    UNION ALL
    SELECT * FROM job_execution_durations WHERE span = 1 AND starts_at >= %(hours_end)s AND starts_at < %(end)s
) AS durations
GROUP BY type, bucket
