-- Claim ticks, one array a column: move each schedule on that stands where the caller has seen it, store its tick (no due_at: it has none), and say
-- the numbers of the claims that went through, from 1. A schedule that somebody else is at is left to them, so that nobody waits, crosswise or for
-- one that is frozen. A tick is stored only with the lock on its schedule: whichever this statement does not see yet has changed the version too.
-- Lateral, and by ctid: so each row is fetched by itself, however many the planner expects.
WITH found AS MATERIALIZED (
    SELECT given.*, schedule.place FROM (
        SELECT * FROM unnest(
            %(name)s::text[], %(version)s::bigint[], %(seen)s::timestamptz[], %(next_run)s::timestamptz[], %(due_at)s::timestamptz[],
            %(claimed_at)s::timestamptz[], %(sent)s::boolean[], %(job_id)s::text[], %(record)s::bytea[]
        ) WITH ORDINALITY AS given (name, version, seen, next_run, due_at, claimed_at, sent, job_id, record, number)
        ORDER BY name
    ) AS given
    CROSS JOIN LATERAL (
        SELECT schedule.ctid AS place FROM job_schedules AS schedule
        WHERE schedule.name = given.name AND schedule.version = given.version AND schedule.next_run IS NOT DISTINCT FROM given.seen
            AND NOT EXISTS (SELECT FROM job_schedule_ticks AS tick WHERE tick.schedule = given.name AND tick.due_at = given.due_at)
        FOR UPDATE SKIP LOCKED
    ) AS schedule
), moved AS (
    UPDATE job_schedules AS schedule SET
        version = schedule.version + 1,
        next_run = found.next_run,
        last_run = coalesce(found.due_at, schedule.last_run),
        last_job_id = coalesce(found.job_id, schedule.last_job_id)
    FROM found WHERE schedule.ctid = ANY (ARRAY(SELECT place FROM found)) AND schedule.name = found.name
    RETURNING found.*
), added AS (
    INSERT INTO job_schedule_ticks (schedule, due_at, claimed_at, sent, job_id, record)
    SELECT name, due_at, claimed_at, sent, job_id, record FROM moved WHERE due_at IS NOT NULL
)
SELECT number FROM moved
