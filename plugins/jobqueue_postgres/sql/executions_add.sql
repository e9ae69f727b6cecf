-- Store or count the executions in /*incoming*/ that are not known, and add just those to the rollups. Repeating it changes nothing.
-- Rows and rollups are written in one order, so that two recorders wait for each other in one direction only.
WITH arrived AS MATERIALIZED (
    SELECT * FROM /*incoming*/
), stored AS (
    INSERT INTO job_executions (
        finished_at, id, job_id, run, attempt, crashes, deaths, max_retries, duration_ms, started_at, created_at, scheduled_at, type, queue, priority,
        state, dead_reason, error, worker_id, metadata
    )
    SELECT
        finished_at, id, job_id, run, attempt, crashes, deaths, max_retries, duration_ms, started_at, created_at, scheduled_at, type, queue, priority,
        state, dead_reason, error, worker_id, metadata
    FROM arrived WHERE kept ORDER BY finished_at, id
    ON CONFLICT DO NOTHING
    RETURNING id
), counted AS (
    INSERT INTO job_executions_counted (id)
    SELECT id FROM arrived
    WHERE NOT kept
        AND NOT EXISTS (SELECT FROM job_executions AS known WHERE known.finished_at = arrived.finished_at AND known.id = arrived.id)
    ORDER BY id
    ON CONFLICT DO NOTHING
    RETURNING id
), added AS MATERIALIZED (
    SELECT finished_at, type, state, duration_ms, bucket FROM arrived
    WHERE id IN (SELECT id FROM stored UNION ALL SELECT id FROM counted)
        -- Counted before, and stored only now: [history] record has changed in between.
        AND NOT (kept AND EXISTS (SELECT FROM job_executions_counted AS known WHERE known.id = arrived.id))
), minutes AS MATERIALIZED (
    -- Summed up before each is counted in every span.
    SELECT
        date_bin('1 minute', finished_at, '2000-01-01T00:00:00Z') AS starts_at, type, bucket,
        count(*) AS count,
        count(*) FILTER (WHERE state = 'completed') AS completed,
        count(*) FILTER (WHERE state = 'failed') AS failed,
        count(*) FILTER (WHERE state = 'dead') AS dead,
        count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
        count(*) FILTER (WHERE state = 'snoozed') AS snoozed,
        count(*) FILTER (WHERE state = 'returned') AS returned,
        count(*) FILTER (WHERE state = 'lost') AS lost,
        coalesce(sum(duration_ms) FILTER (WHERE bucket IS NOT NULL), 0) AS duration_ms
    FROM added GROUP BY 1, 2, 3
), fresh AS MATERIALIZED (
    SELECT
        span,
        CASE span
            WHEN 0 THEN '2000-01-01T00:00:00Z' -- of all time
            ELSE date_bin(make_interval(mins => span), starts_at, '2000-01-01T00:00:00Z')
        END AS starts_at,
        type, bucket, count, completed, failed, dead, cancelled, snoozed, returned, lost, duration_ms
    FROM minutes, unnest(ARRAY[0, 1, 60, 360]::smallint[]) AS span
), measured AS (
    INSERT INTO job_execution_durations AS known (span, starts_at, type, bucket, count)
    SELECT span, starts_at, type, bucket, sum(count) FROM fresh WHERE bucket IS NOT NULL
    GROUP BY span, starts_at, type, bucket ORDER BY span, starts_at, type, bucket
    ON CONFLICT (span, starts_at, type, bucket) DO UPDATE SET count = known.count + excluded.count
)
INSERT INTO job_execution_rollups AS known (span, starts_at, type, completed, failed, dead, cancelled, snoozed, returned, lost, duration_ms)
SELECT
    span, starts_at, type,
    sum(completed), sum(failed), sum(dead), sum(cancelled), sum(snoozed), sum(returned), sum(lost), sum(duration_ms)
FROM fresh GROUP BY span, starts_at, type ORDER BY span, starts_at, type
ON CONFLICT (span, starts_at, type) DO UPDATE SET
    completed = known.completed + excluded.completed,
    failed = known.failed + excluded.failed,
    dead = known.dead + excluded.dead,
    cancelled = known.cancelled + excluded.cancelled,
    snoozed = known.snoozed + excluded.snoozed,
    returned = known.returned + excluded.returned,
    lost = known.lost + excluded.lost,
    duration_ms = known.duration_ms + excluded.duration_ms
