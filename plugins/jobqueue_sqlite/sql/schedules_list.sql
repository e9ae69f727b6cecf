-- All schedules, by name.
SELECT record, version FROM schedules ORDER BY name
