-- Move a schedule on, if it stands where the caller has seen it, and nobody has claimed the tick at :due_us (NULL: there is none to claim).
UPDATE schedules SET version = version + 1, next_run_us = :next_run_us, record = :record
WHERE name = :name AND version = :version AND next_run_us IS :seen_us
    AND NOT EXISTS (SELECT 1 FROM ticks WHERE schedule = :name AND due_us = :due_us)
