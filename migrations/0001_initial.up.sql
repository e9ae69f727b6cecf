-- The first schema: execution history, dead letter queue, schedules. Times are timestamptz and come from the broker's clock, never from now().
-- What stands in an index is compared byte by byte (COLLATE "C"): an upgrade of the system's locales changes nothing.
-- Text columns cannot hold NUL: \0 is written as DLE "0", DLE itself as DLE DLE (DLE is chr(16)).

-- Executions ---------------------------------------------------------------------------------------------------------------------------

CREATE TABLE job_executions (
    finished_at timestamptz NOT NULL,
    id uuid NOT NULL,
    job_id uuid NOT NULL,
    run integer NOT NULL,
    attempt integer NOT NULL,
    crashes integer NOT NULL,
    deaths integer NOT NULL,
    max_retries integer,
    duration_ms double precision NOT NULL,
    started_at timestamptz,
    created_at timestamptz,
    scheduled_at timestamptz,
    type text COLLATE "C" NOT NULL,
    queue text COLLATE "C" NOT NULL,
    priority text NOT NULL,
    state text COLLATE "C" NOT NULL,
    dead_reason text,
    error text,
    worker_id text,
    metadata json,
    PRIMARY KEY (finished_at, id)
) PARTITION BY RANGE (finished_at);
CREATE INDEX job_executions_of_job ON job_executions (job_id, run);
CREATE INDEX job_executions_by_state ON job_executions (state, finished_at, id);
CREATE INDEX job_executions_by_type ON job_executions (type, state, finished_at, id) INCLUDE (queue);
CREATE INDEX job_executions_by_queue ON job_executions (queue, state, finished_at, id);

-- What fits into no partition; adding one moves its rows out of here.
CREATE TABLE job_executions_default PARTITION OF job_executions DEFAULT;

-- The partitions that were made: their names say from when to when they reach, in hours of UTC.
CREATE FUNCTION jobqueue_partitions() RETURNS TABLE (name text, starts_at timestamptz, ends_at timestamptz)
LANGUAGE sql STABLE SET search_path FROM CURRENT SET timezone = 'UTC' AS $$
    SELECT
        relname::text,
        pg_catalog.to_timestamp(pg_catalog.split_part(relname::text, '_', 3), 'YYYYMMDDHH24'),
        pg_catalog.to_timestamp(pg_catalog.split_part(relname::text, '_', 4), 'YYYYMMDDHH24')
    FROM pg_catalog.pg_inherits JOIN pg_catalog.pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = 'job_executions'::regclass AND relname ~ '^job_executions_[0-9]{10}_[0-9]{10}$'
    ORDER BY relname
$$;

-- The next two run as their owner, so that whoever records needs no DDL rights. Every function in them is named with its schema: somebody who may
-- make functions in ours could otherwise offer one that fits better.

-- Make the partition from starts_at to ends_at (whole hours); false when it is there.
CREATE FUNCTION jobqueue_add_partition(starts_at timestamptz, ends_at timestamptz) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET timezone = 'UTC' SET lock_timeout = '2s' AS $$
DECLARE
    partition text := 'job_executions_' || pg_catalog.to_char(starts_at, 'YYYYMMDDHH24') || '_' || pg_catalog.to_char(ends_at, 'YYYYMMDDHH24');
BEGIN
    IF pg_catalog.date_trunc('hour', starts_at) <> starts_at OR pg_catalog.date_trunc('hour', ends_at) <> ends_at OR ends_at <= starts_at THEN
        RAISE EXCEPTION 'a partition reaches from one whole hour to a later one, not from % to %', starts_at, ends_at;
    END IF;
    PERFORM pg_catalog.pg_advisory_xact_lock('job_executions'::regclass::oid::bigint);
    IF pg_catalog.to_regclass(pg_catalog.quote_ident(partition)) IS NOT NULL THEN
        RETURN false;
    END IF;
    LOCK TABLE job_executions_default IN ACCESS EXCLUSIVE MODE;
    EXECUTE pg_catalog.format('CREATE TABLE %I (LIKE job_executions INCLUDING ALL)', partition);
    EXECUTE pg_catalog.format(
        'WITH moved AS (DELETE FROM job_executions_default WHERE finished_at >= %L AND finished_at < %L RETURNING *) INSERT INTO %I SELECT * FROM moved',
        starts_at, ends_at, partition
    );
    EXECUTE pg_catalog.format('ALTER TABLE job_executions ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', partition, starts_at, ends_at);
    RETURN true;
END
$$;

-- Drop the oldest partition if all of it is before that; its name, or NULL. It hardly waits for those who read: others would wait behind it.
CREATE FUNCTION jobqueue_drop_partition(before timestamptz) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET timezone = 'UTC' SET lock_timeout = '200ms' AS $$
DECLARE
    partition text;
BEGIN
    IF NOT pg_catalog.pg_try_advisory_xact_lock('job_executions'::regclass::oid::bigint) THEN
        RETURN NULL;
    END IF;
    SELECT name INTO partition FROM jobqueue_partitions() WHERE ends_at <= before ORDER BY ends_at LIMIT 1;
    IF partition IS NOT NULL THEN
        EXECUTE pg_catalog.format('DROP TABLE %I', partition);
    END IF;
    RETURN partition;
END
$$;
REVOKE EXECUTE ON FUNCTION jobqueue_add_partition, jobqueue_drop_partition FROM PUBLIC;

-- Executions that were counted but not stored ([history] record): so that a repeat is not counted again. Only the latest are kept.
CREATE TABLE job_executions_counted (
    id uuid PRIMARY KEY,
    number bigint GENERATED ALWAYS AS IDENTITY
);
CREATE INDEX job_executions_counted_number ON job_executions_counted (number);

-- What executions add up to, by minute, hour and quarter of a day (span: 1, 60 or 360 minutes) and type. Written in the transaction that stores them.
CREATE TABLE job_execution_rollups (
    span smallint NOT NULL,
    starts_at timestamptz NOT NULL,
    type text COLLATE "C" NOT NULL,
    completed bigint NOT NULL,
    failed bigint NOT NULL,
    dead bigint NOT NULL,
    cancelled bigint NOT NULL,
    snoozed bigint NOT NULL,
    returned bigint NOT NULL,
    lost bigint NOT NULL,
    duration_ms double precision NOT NULL,   -- the sum over runs that completed, failed or died
    PRIMARY KEY (span, starts_at, type)
) WITH (fillfactor = 70);

-- How many of those runs took how long: buckets as in jobqueue_core/histogram.py.
CREATE TABLE job_execution_durations (
    span smallint NOT NULL,
    starts_at timestamptz NOT NULL,
    type text COLLATE "C" NOT NULL,
    bucket smallint NOT NULL,
    count bigint NOT NULL,
    PRIMARY KEY (span, starts_at, type, bucket)
) WITH (fillfactor = 70);

-- Dead letters -------------------------------------------------------------------------------------------------------------------------

CREATE TABLE dead_letter_queue (
    job_id uuid NOT NULL,
    death integer NOT NULL,
    died_at timestamptz NOT NULL,
    type text COLLATE "C" NOT NULL,
    queue text COLLATE "C" NOT NULL,
    priority text NOT NULL,
    state text COLLATE "C" NOT NULL CHECK (state IN ('open', 'requeueing', 'requeued', 'discarded')),
    dead_reason text,
    error text NOT NULL,
    traceback text,
    fingerprint text COLLATE "C" NOT NULL,
    payload json,                            -- as text, so that a retry is byte-identical
    payload_raw bytea,                       -- instead, when it is no JSON
    raw bytea,                               -- of an entry that could not be read: what was found
    metadata json NOT NULL,
    unique_key text,
    attempts bigint NOT NULL,
    max_retries bigint,
    run bigint NOT NULL,
    crashes bigint NOT NULL,
    worker_id text,
    created_at timestamptz NOT NULL,
    scheduled_at timestamptz,
    started_at timestamptz,
    requeueing_at timestamptz,
    requeued_at timestamptz,
    requeue_count integer NOT NULL DEFAULT 0,
    record bytea NOT NULL,                   -- the job as it died, without its payload: a format number, then msgpack
    PRIMARY KEY (job_id, death)
) WITH (toast_tuple_target = 512);
-- Each list that can be asked for is one range of one of these, or a few, latest death last. They hold all that lists and counts compare.
CREATE INDEX dead_letter_queue_by_state ON dead_letter_queue (state, died_at, job_id, death) INCLUDE (fingerprint);
CREATE INDEX dead_letter_queue_by_type ON dead_letter_queue (state, type, died_at, job_id, death) INCLUDE (fingerprint);
CREATE INDEX dead_letter_queue_by_queue ON dead_letter_queue (state, queue, died_at, job_id, death) INCLUDE (fingerprint);
CREATE INDEX dead_letter_queue_by_type_and_queue ON dead_letter_queue (state, type, queue, died_at, job_id, death) INCLUDE (fingerprint);
CREATE INDEX dead_letter_queue_by_fingerprint ON dead_letter_queue (state, fingerprint, died_at, job_id, death);
CREATE INDEX dead_letter_queue_by_kind ON dead_letter_queue (state, fingerprint, type, queue, died_at, job_id, death);
CREATE INDEX dead_letter_queue_requeueing ON dead_letter_queue (requeueing_at) WHERE state = 'requeueing';

-- Dead letters that the table above refuses, by a constraint that somebody has added, say: tried again each minute, and never forgotten.
CREATE TABLE dead_letters_refused (
    job_id text COLLATE "C" NOT NULL,
    death bigint NOT NULL,
    died_at timestamptz NOT NULL,
    problem text NOT NULL,
    record bytea NOT NULL,                   -- the whole dead letter: a format number, then msgpack
    PRIMARY KEY (job_id, death)
);

-- How many dead letters there are of each kind, kept by the triggers below, so that nobody counts rows.
CREATE TABLE dead_letter_counts (
    state text COLLATE "C" NOT NULL,
    fingerprint text COLLATE "C" NOT NULL,
    type text COLLATE "C" NOT NULL,
    queue text COLLATE "C" NOT NULL,
    count bigint NOT NULL,
    PRIMARY KEY (state, fingerprint, type, queue)
) WITH (fillfactor = 70);

CREATE FUNCTION jobqueue_count_dead_letters() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    -- In one order, so that two statements wait for each other in one direction only.
    IF TG_OP = 'INSERT' THEN
        INSERT INTO dead_letter_counts AS kept (state, fingerprint, type, queue, count)
        SELECT state, fingerprint, type, queue, count(*) FROM added GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
        ON CONFLICT (state, fingerprint, type, queue) DO UPDATE SET count = kept.count + excluded.count;
    ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO dead_letter_counts AS kept (state, fingerprint, type, queue, count)
        SELECT state, fingerprint, type, queue, sum(change) FROM (
            SELECT state, fingerprint, type, queue, 1 AS change FROM added
            UNION ALL
            SELECT state, fingerprint, type, queue, -1 FROM removed
        ) AS changes
        GROUP BY 1, 2, 3, 4 HAVING sum(change) <> 0 ORDER BY 1, 2, 3, 4
        ON CONFLICT (state, fingerprint, type, queue) DO UPDATE SET count = kept.count + excluded.count;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO dead_letter_counts AS kept (state, fingerprint, type, queue, count)
        SELECT state, fingerprint, type, queue, -count(*) FROM removed GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
        ON CONFLICT (state, fingerprint, type, queue) DO UPDATE SET count = kept.count + excluded.count;
    ELSE
        DELETE FROM dead_letter_counts;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER count_added AFTER INSERT ON dead_letter_queue
REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION jobqueue_count_dead_letters();
CREATE TRIGGER count_changed AFTER UPDATE ON dead_letter_queue
REFERENCING OLD TABLE AS removed NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION jobqueue_count_dead_letters();
CREATE TRIGGER count_removed AFTER DELETE ON dead_letter_queue
REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION jobqueue_count_dead_letters();
CREATE TRIGGER count_none AFTER TRUNCATE ON dead_letter_queue FOR EACH STATEMENT EXECUTE FUNCTION jobqueue_count_dead_letters();

-- Schedules ----------------------------------------------------------------------------------------------------------------------------

CREATE TABLE job_schedules (
    name text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL,
    enabled boolean NOT NULL,
    next_run timestamptz,
    expression text NOT NULL,
    timezone text NOT NULL,
    type text NOT NULL,
    payload json,
    payload_raw bytea,
    queue text,
    priority text,
    max_retries bigint,
    timeout interval,
    misfire text NOT NULL,
    misfire_limit bigint NOT NULL,
    overlap text NOT NULL,
    jitter interval,
    starts_at timestamptz,
    ends_at timestamptz,
    source text NOT NULL,
    last_run timestamptz,
    last_job_id text
);
CREATE INDEX job_schedules_due ON job_schedules (next_run) WHERE enabled;

-- Each moment at which a schedule was due and somebody claimed it, and the job that it becomes.
CREATE TABLE job_schedule_ticks (
    schedule text COLLATE "C" NOT NULL,
    due_at timestamptz NOT NULL,
    claimed_at timestamptz NOT NULL,
    sent boolean NOT NULL,
    job_id text NOT NULL,
    record bytea NOT NULL,                   -- the job to enqueue: a format number, then msgpack
    PRIMARY KEY (schedule, due_at)
);
CREATE INDEX job_schedule_ticks_unsent ON job_schedule_ticks (claimed_at) WHERE NOT sent;
