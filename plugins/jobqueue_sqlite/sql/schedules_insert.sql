-- Write a schedule that must not be there.
INSERT INTO schedules (name, version, enabled, next_run_us, record) VALUES (:name, :version, :enabled, :next_run_us, :record)
ON CONFLICT (name) DO NOTHING
