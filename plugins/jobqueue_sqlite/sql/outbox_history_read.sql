-- Executions on their way to storage, oldest first.
SELECT number, record FROM outbox_history ORDER BY number LIMIT :limit
