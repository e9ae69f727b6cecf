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
    -- By itself: joined together with the spans it would be planned as a loop over each pair of rows.
    SELECT finished_at, type, state, duration_ms, bucket FROM arrived
    WHERE id IN (SELECT id FROM stored UNION ALL SELECT id FROM counted)
        -- Counted before, and stored only now: [history] record has changed in between.
        AND NOT (kept AND EXISTS (SELECT FROM job_executions_counted AS known WHERE known.id = arrived.id))
), fresh AS MATERIALIZED (
    SELECT span, date_bin(make_interval(mins => span), finished_at, '2000-01-01T00:00:00Z') AS starts_at, type, state, duration_ms, bucket
    FROM added, unnest(ARRAY[1, 60, 360]::smallint[]) AS span
), measured AS (
    INSERT INTO job_execution_durations AS known (span, starts_at, type, bucket, count)
    SELECT span, starts_at, type, bucket, count(*) FROM fresh WHERE bucket IS NOT NULL
    GROUP BY span, starts_at, type, bucket ORDER BY span, starts_at, type, bucket
    ON CONFLICT (span, starts_at, type, bucket) DO UPDATE SET count = known.count + excluded.count
)
INSERT INTO job_execution_rollups AS known (span, starts_at, type, completed, failed, dead, cancelled, snoozed, returned, lost, duration_ms)
SELECT
    span, starts_at, type,
    count(*) FILTER (WHERE state = 'completed'),
    count(*) FILTER (WHERE state = 'failed'),
    count(*) FILTER (WHERE state = 'dead'),
    count(*) FILTER (WHERE state = 'cancelled'),
    count(*) FILTER (WHERE state = 'snoozed'),
    count(*) FILTER (WHERE state = 'returned'),
    count(*) FILTER (WHERE state = 'lost'),
    coalesce(sum(duration_ms) FILTER (WHERE bucket IS NOT NULL), 0)
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
