-- All schedules, by name.
SELECT record, version, name FROM schedules ORDER BY name
