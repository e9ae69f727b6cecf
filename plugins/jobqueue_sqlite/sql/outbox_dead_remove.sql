-- As outbox_history_remove.
DELETE FROM outbox_dead WHERE number IN (SELECT value FROM json_each(:numbers))
