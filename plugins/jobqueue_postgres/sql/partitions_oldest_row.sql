-- When the oldest execution finished that is in no partition.
SELECT min(finished_at) FROM job_executions_default
