-- Events after a position, oldest first.
SELECT number, at_us, kind, data FROM events WHERE number > :after ORDER BY number LIMIT :limit
