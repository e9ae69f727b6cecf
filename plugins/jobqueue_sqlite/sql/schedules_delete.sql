-- Delete a schedule.
DELETE FROM schedules WHERE name = :name
