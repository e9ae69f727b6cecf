-- Dead letters on their way to storage, oldest first.
SELECT number, record FROM outbox_dead ORDER BY number LIMIT :limit
