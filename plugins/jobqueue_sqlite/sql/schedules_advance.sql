-- Move a schedule on, if it stands where the caller has seen it.
UPDATE schedules SET version = version + 1, next_run_us = :next_run_us, record = :record
WHERE name = :name AND version = :version AND next_run_us IS :seen_us
