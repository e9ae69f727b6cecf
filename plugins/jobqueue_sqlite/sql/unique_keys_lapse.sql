-- Of keys whose unique_for has passed: those whose job lives are held by the job alone from now on.
UPDATE unique_keys SET until_us = NULL
WHERE until_us <= :now_us AND EXISTS (SELECT 1 FROM jobs WHERE jobs.id = job_id AND forget_us IS NULL)
