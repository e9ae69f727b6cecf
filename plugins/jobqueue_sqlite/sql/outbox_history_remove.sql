-- Remove what storage has, :numbers (JSON array). The number of rows is what the counter goes down by.
DELETE FROM outbox_history WHERE number IN (SELECT value FROM json_each(:numbers))
