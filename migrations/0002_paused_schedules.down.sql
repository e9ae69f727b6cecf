-- Back to one switch: what is paused is disabled, so that nothing fires because of this.
UPDATE job_schedules SET enabled = false, version = version + 1 WHERE paused;
DROP INDEX job_schedules_due;
ALTER TABLE job_schedules DROP COLUMN paused;
CREATE INDEX job_schedules_due ON job_schedules (next_run) WHERE enabled;
