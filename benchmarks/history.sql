-- A month of history: benchmark.executions rows of 20 types in 5 queues, evenly over 29 days, 94 % of them completed; their rollups; and
-- benchmark.dead_letters dead letters in 60 groups, 70 % of them open, with some 3 KB each.
SET synchronous_commit = off;

SELECT jobqueue_add_partition(day, day + interval '1 day')
FROM generate_series(date_trunc('day', now(), 'UTC') - interval '29 days', date_trunc('day', now(), 'UTC') + interval '3 days', interval '1 day') AS day;

INSERT INTO job_executions (
    finished_at, id, job_id, run, attempt, crashes, deaths, duration_ms, started_at, created_at, type, queue, priority, state, error, worker_id
)
SELECT
    ended, gen_random_uuid(), (lpad(to_hex((extract(epoch FROM ended) * 1000)::bigint), 12, '0') || '7abc8' || substr(md5(number::text), 1, 15))::uuid,
    1, 1, 0, 0, exp(random() * 9), ended - interval '1 second', ended - interval '2 seconds', 'type.' || kind, 'queue-' || kind / 4, 'medium',
    CASE WHEN share < 94 THEN 'completed' WHEN share < 98 THEN 'failed' WHEN share < 99 THEN 'snoozed' WHEN share < 99.9 THEN 'dead' ELSE 'lost' END,
    CASE WHEN share >= 94 THEN 'ValueError: something is not as it should be, in row ' || number END, 'worker-' || number % 7
FROM (
    SELECT number, floor(random() * 20)::integer AS kind, random() * 100 AS share, now() - interval '29 days' * (1 - number / rows) AS ended
    FROM (SELECT current_setting('benchmark.executions')::double precision AS rows) AS wanted, generate_series(1, rows::bigint) AS number
) AS drawn;

INSERT INTO job_execution_rollups (span, starts_at, type, completed, failed, dead, cancelled, snoozed, returned, lost, duration_ms)
SELECT
    span, CASE span WHEN 0 THEN '2000-01-01T00:00:00Z' ELSE date_bin(make_interval(mins => span), finished_at, '2000-01-01T00:00:00Z') END, type, count(*) FILTER (WHERE state = 'completed'),
    count(*) FILTER (WHERE state = 'failed'), count(*) FILTER (WHERE state = 'dead'), 0, count(*) FILTER (WHERE state = 'snoozed'), 0,
    count(*) FILTER (WHERE state = 'lost'), sum(duration_ms)
FROM job_executions, unnest(ARRAY[0, 1, 60, 360]::smallint[]) AS span GROUP BY 1, 2, 3 ORDER BY 2;  -- as time writes them

INSERT INTO job_execution_durations (span, starts_at, type, bucket, count)
SELECT
    span, CASE span WHEN 0 THEN '2000-01-01T00:00:00Z' ELSE date_bin(make_interval(mins => span), finished_at, '2000-01-01T00:00:00Z') END, type, ceil(ln(duration_ms / 0.01) / ln(1.1))::smallint, count(*)
FROM job_executions, unnest(ARRAY[0, 1, 60, 360]::smallint[]) AS span WHERE state IN ('completed', 'failed', 'dead') GROUP BY 1, 2, 3, 4
ORDER BY 2;

INSERT INTO dead_letter_queue (
    job_id, death, died_at, type, queue, priority, state, dead_reason, error, traceback, fingerprint, payload, metadata, attempts, run, crashes,
    created_at, record
)
SELECT
    gen_random_uuid(), 1, now() - interval '29 days' * random(), 'type.' || kind % 20, 'queue-' || kind % 5, 'medium',
    CASE WHEN share < 70 THEN 'open' WHEN share < 90 THEN 'requeued' ELSE 'discarded' END, 'retries_exhausted', 'ValueError: in row ' || number,
    repeat(md5(random()::text), 40), left(md5((kind % 60)::text), 16), ('{"text": "' || repeat(md5(random()::text), 50) || '"}')::json, '{}', 4, 4, 0,
    now() - interval '30 days', decode(current_setting('benchmark.record'), 'hex')
FROM (
    SELECT number, floor(random() * 600)::integer AS kind, random() * 100 AS share
    FROM generate_series(1, current_setting('benchmark.dead_letters')::bigint) AS number
) AS drawn;
