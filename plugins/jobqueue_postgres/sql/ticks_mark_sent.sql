-- Mark ticks as sent, one array a column. Whoever else is at one marks it too: nobody waits, crosswise or for one that is frozen.
WITH found AS MATERIALIZED (
    SELECT tick.place FROM unnest(%(schedules)s::text[], %(due_at)s::timestamptz[]) AS given (schedule, due_at)
    CROSS JOIN LATERAL (
        SELECT tick.ctid AS place FROM job_schedule_ticks AS tick
        WHERE tick.schedule = given.schedule AND tick.due_at = given.due_at AND NOT tick.sent
        FOR UPDATE SKIP LOCKED
    ) AS tick
)
UPDATE job_schedule_ticks SET sent = true WHERE ctid = ANY (ARRAY(SELECT place FROM found))
