-- Schedules that an operator has paused, apart from those that their definition disables.
-- migrate: readable-from 0001
ALTER TABLE job_schedules ADD COLUMN paused boolean NOT NULL DEFAULT false;

-- Those that are paused stay due for as long as they are, and would be in the way.
DROP INDEX job_schedules_due;
CREATE INDEX job_schedules_due ON job_schedules (next_run) WHERE enabled AND NOT paused;
