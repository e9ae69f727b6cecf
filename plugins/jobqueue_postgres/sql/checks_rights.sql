-- What our role may not do of what it must: tables first, then functions, then temporary tables.
SELECT missing FROM (
    SELECT 1 AS rank, privilege || ' on ' || name AS missing
    FROM unnest(ARRAY[
        'job_executions', 'job_executions_default', 'job_executions_counted', 'job_execution_rollups', 'job_execution_durations',
        'dead_letter_queue', 'dead_letters_refused', 'dead_letter_counts', 'job_schedules', 'job_schedule_ticks'
    ]) AS name, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege
    WHERE NOT has_table_privilege(name, privilege)
    UNION ALL
    SELECT 2, 'EXECUTE on ' || name FROM unnest(ARRAY[
        'jobqueue_add_partition(timestamptz, timestamptz)', 'jobqueue_drop_partition(timestamptz)'
    ]) AS name
    WHERE NOT has_function_privilege(name, 'EXECUTE')
    UNION ALL
    SELECT 3, 'TEMPORARY on database ' || current_database()
    WHERE NOT %(pooled)s AND NOT has_database_privilege(current_database(), 'TEMPORARY')
) AS rights
ORDER BY rank, missing
