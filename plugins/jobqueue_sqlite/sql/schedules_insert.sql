-- Write a schedule that must not be there.
INSERT INTO schedules (name, version, enabled, next_run_us, record) VALUES (:name, 1, :enabled, :next_run_us, :record)
ON CONFLICT (name) DO NOTHING
