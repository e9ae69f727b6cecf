-- The latest ticks of a schedule, newest first.
SELECT record, sent, schedule FROM ticks WHERE schedule = :schedule ORDER BY due_us DESC LIMIT :limit
