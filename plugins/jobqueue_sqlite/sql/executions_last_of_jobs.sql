-- For each of :jobs (JSON array of [job_id, since_us]), in order, its last execution that finished from then on and before :finished_until_us, or null.
SELECT (
    SELECT record FROM executions INDEXED BY executions_job
    WHERE job_id = json_extract(wanted.value, '$[0]')
        AND finished_us >= json_extract(wanted.value, '$[1]') AND finished_us < :finished_until_us
    ORDER BY finished_us DESC, id DESC LIMIT 1
)
FROM json_each(:jobs) AS wanted
ORDER BY wanted.key
