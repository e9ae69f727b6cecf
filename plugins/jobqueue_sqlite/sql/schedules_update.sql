-- Write a schedule that must be there in :version.
UPDATE schedules SET version = version + 1, enabled = :enabled, next_run_us = :next_run_us, record = :record
WHERE name = :name AND version = :version
