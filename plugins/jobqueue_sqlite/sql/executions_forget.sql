-- Forget executions that finished before :before_us, oldest first.
DELETE FROM executions
WHERE (finished_us, id) IN (SELECT finished_us, id FROM executions WHERE finished_us < :before_us ORDER BY finished_us, id LIMIT :limit)
