-- Keep of each given schedule the latest :keep ticks, and every one that was not sent.
WITH found AS MATERIALIZED (
    SELECT tick.place FROM unnest(%(schedules)s::text[]) AS given (schedule)
    CROSS JOIN LATERAL (
        SELECT due_at FROM job_schedule_ticks WHERE schedule = given.schedule ORDER BY due_at DESC LIMIT 1 OFFSET %(keep)s - 1
    ) AS oldest
    CROSS JOIN LATERAL (
        SELECT tick.ctid AS place FROM job_schedule_ticks AS tick
        WHERE tick.schedule = given.schedule AND tick.due_at < oldest.due_at AND tick.sent
        FOR UPDATE SKIP LOCKED
    ) AS tick
)
DELETE FROM job_schedule_ticks WHERE ctid = ANY (ARRAY(SELECT place FROM found))
