-- One schedule.
SELECT record, version FROM schedules WHERE name = :name
