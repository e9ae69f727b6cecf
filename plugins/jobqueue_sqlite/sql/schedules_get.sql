-- One schedule.
SELECT record, version, name FROM schedules WHERE name = :name
