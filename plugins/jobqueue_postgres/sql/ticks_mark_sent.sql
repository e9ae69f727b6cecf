-- Mark ticks as sent, one array a column. Whoever else is at one marks it too: nobody waits, crosswise or for one that is frozen. Which of them are
-- sent is asked last: else each might be looked for among all that are not, when the planner expects none.
WITH found AS MATERIALIZED (
    SELECT tick.place, tick.sent FROM unnest(%(schedules)s::text[], %(due_at)s::timestamptz[]) AS given (schedule, due_at)
    CROSS JOIN LATERAL (
        SELECT tick.ctid AS place, tick.sent FROM job_schedule_ticks AS tick
        WHERE tick.schedule = given.schedule AND tick.due_at = given.due_at
        FOR UPDATE SKIP LOCKED
    ) AS tick
)
UPDATE job_schedule_ticks SET sent = true WHERE ctid = ANY (ARRAY(SELECT place FROM found WHERE NOT sent))
