-- Executions as arrays, one a column: what stands for the temporary table behind a transaction pooler.
unnest(
    %(finished_at)s::timestamptz[], %(id)s::uuid[], %(job_id)s::uuid[], %(run)s::integer[], %(attempt)s::integer[], %(crashes)s::integer[],
    %(deaths)s::integer[], %(duration_ms)s::double precision[], %(kept)s::boolean[], %(bucket)s::smallint[], %(max_retries)s::integer[],
    %(started_at)s::timestamptz[], %(created_at)s::timestamptz[], %(scheduled_at)s::timestamptz[], %(type)s::text[], %(queue)s::text[],
    %(priority)s::text[], %(state)s::text[], %(dead_reason)s::text[], %(error)s::text[], %(worker_id)s::text[], %(metadata)s::json[]
) AS incoming (
    finished_at, id, job_id, run, attempt, crashes, deaths, duration_ms, kept, bucket, max_retries, started_at, created_at, scheduled_at, type,
    queue, priority, state, dead_reason, error, worker_id, metadata
)
