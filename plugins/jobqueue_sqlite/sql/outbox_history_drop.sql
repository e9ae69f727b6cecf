-- Drop the oldest executions, because too many wait.
DELETE FROM outbox_history WHERE number IN (SELECT number FROM outbox_history ORDER BY number LIMIT :surplus)
