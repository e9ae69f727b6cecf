-- When the oldest execution finished that is in no partition; NULL when there are so many that moving them would take long.
SELECT min(finished_at) FROM job_executions_default
WHERE (SELECT count(*) FROM (SELECT FROM job_executions_default LIMIT 200001) AS strays) <= 200000
