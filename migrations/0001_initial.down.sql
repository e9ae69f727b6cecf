-- Take everything away, with all that is in it.
DROP TABLE job_schedule_ticks;
DROP TABLE job_schedules;
DROP TABLE dead_letter_queue;
DROP TABLE dead_letters_refused;
DROP TABLE dead_letter_counts;
DROP FUNCTION jobqueue_count_dead_letters;
DROP TABLE job_execution_durations;
DROP TABLE job_execution_rollups;
DROP TABLE job_executions_counted;
DROP FUNCTION jobqueue_drop_partition;
DROP FUNCTION jobqueue_add_partition;
DROP FUNCTION jobqueue_partitions;
DROP TABLE job_executions;
