-- Take the right to migrate this schema until the transaction ends; false when somebody else has it.
SELECT pg_try_advisory_xact_lock(hashtextextended('jobqueue migrate ' || current_setting('search_path'), 0))
