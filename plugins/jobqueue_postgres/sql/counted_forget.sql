-- Forget which executions were counted, but for the latest: what is repeated is repeated soon.
DELETE FROM job_executions_counted
WHERE number = ANY (ARRAY(
    SELECT number FROM job_executions_counted
    WHERE number <= (SELECT max(number) FROM job_executions_counted) - %(keep)s
    ORDER BY number LIMIT %(limit)s FOR UPDATE SKIP LOCKED
))
