-- The first schema. Times are microseconds since the epoch (names end in _us); records are msgpack with a format number in front.

-- Jobs. `record` is the job as of its last transition; the columns say what has changed since (a lease, a promotion, progress, a request to
-- cancel) and what jobs are selected by. Exactly one of ready, due_us, lease_until_us and forget_us is set; it says where the job is:
-- waiting for a worker, waiting for its time, held under a lease, finished.
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    type TEXT NOT NULL,
    queue TEXT NOT NULL,
    priority INTEGER NOT NULL,             -- rank: 0 critical to 3 low
    state TEXT NOT NULL,
    record BLOB NOT NULL,
    deaths INTEGER NOT NULL DEFAULT 0,
    suspect INTEGER NOT NULL DEFAULT 0,    -- 1 when it has crashed a worker
    ready INTEGER,                         -- order among waiting jobs; below zero when given back
    ready_since_us INTEGER,
    due_us INTEGER,
    expires_us INTEGER,                    -- only while no run has started
    lease_no INTEGER,                      -- names the lease, together with number
    lease_until_us INTEGER,
    lease_us INTEGER,                      -- how long the lease is
    worker_id TEXT,
    started_us INTEGER,
    progress BLOB,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    settled_no INTEGER,                    -- lease_no of the last settlement; below zero: of the last release
    held_until_us INTEGER,                 -- a unique_for or an idempotency key needs the record until then
    forget_us INTEGER
);
CREATE INDEX jobs_ready ON jobs (queue, suspect, priority, ready) WHERE ready IS NOT NULL;
CREATE INDEX jobs_due ON jobs (due_us) WHERE due_us IS NOT NULL;
CREATE INDEX jobs_due_by_queue ON jobs (queue, due_us) WHERE due_us IS NOT NULL;
CREATE INDEX jobs_leased ON jobs (lease_until_us, worker_id) WHERE lease_until_us IS NOT NULL;
CREATE INDEX jobs_expiring ON jobs (expires_us) WHERE expires_us IS NOT NULL;
CREATE INDEX jobs_finished ON jobs (forget_us) WHERE forget_us IS NOT NULL;

CREATE VIEW job_rows AS
SELECT number, id, type, queue, priority, state, record, deaths, expires_us, held_until_us, worker_id, started_us, progress, cancel_requested
FROM jobs;

-- One row a queue: how many jobs are where, and how many have ended how, since the queue exists.
CREATE TABLE queues (
    name TEXT PRIMARY KEY,
    paused INTEGER NOT NULL DEFAULT 0,
    critical INTEGER NOT NULL DEFAULT 0,
    high INTEGER NOT NULL DEFAULT 0,
    medium INTEGER NOT NULL DEFAULT 0,
    low INTEGER NOT NULL DEFAULT 0,
    processing INTEGER NOT NULL DEFAULT 0,
    scheduled INTEGER NOT NULL DEFAULT 0,
    retrying INTEGER NOT NULL DEFAULT 0,
    enqueued INTEGER NOT NULL DEFAULT 0,
    completed INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    dead INTEGER NOT NULL DEFAULT 0,
    cancelled INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX queues_open ON queues (name) WHERE paused = 0 AND critical + high + medium + low > 0;

CREATE TABLE rates (
    queue TEXT NOT NULL,
    slot INTEGER NOT NULL,                 -- tens of seconds since the epoch
    enqueued INTEGER NOT NULL,
    completed INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    dead INTEGER NOT NULL,
    PRIMARY KEY (queue, slot)
) WITHOUT ROWID;
CREATE INDEX rates_slot ON rates (slot);

CREATE TABLE unique_keys (
    queue TEXT NOT NULL,
    key TEXT NOT NULL,
    job_id TEXT NOT NULL,
    until_us INTEGER,                      -- held until then even when the job has finished
    PRIMARY KEY (queue, key)
) WITHOUT ROWID;
CREATE INDEX unique_keys_until ON unique_keys (until_us) WHERE until_us IS NOT NULL;

CREATE TABLE idempotency_keys (
    key TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    job_id TEXT NOT NULL,
    until_us INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX idempotency_keys_until ON idempotency_keys (until_us);

CREATE TABLE logs (
    job_id TEXT NOT NULL,
    line INTEGER NOT NULL,
    record BLOB NOT NULL,
    PRIMARY KEY (job_id, line)
) WITHOUT ROWID;

-- AUTOINCREMENT: a number acknowledged twice must never have become another row's in between.
CREATE TABLE outbox_history (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at_us INTEGER NOT NULL,
    record BLOB NOT NULL
);
CREATE TABLE outbox_dead (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at_us INTEGER NOT NULL,
    record BLOB NOT NULL
);

CREATE TABLE events (
    number INTEGER PRIMARY KEY,
    at_us INTEGER NOT NULL,
    kind TEXT NOT NULL,
    data BLOB NOT NULL
);

CREATE TABLE workers (
    id TEXT PRIMARY KEY,
    beat_us INTEGER NOT NULL,
    record BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX workers_beat ON workers (beat_us);

CREATE TABLE types (
    type TEXT PRIMARY KEY,
    seen_us INTEGER NOT NULL,
    record BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX types_seen ON types (seen_us);

-- Sequences, outbox counters and the state of the event log.
CREATE TABLE numbers (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO numbers (name, value) VALUES
    ('ready', 0),
    ('lease', 0),
    ('outbox_history', 0),
    ('outbox_dead', 0),
    ('outbox_dropped', 0),
    ('event', 0),
    ('event_base', 0),
    ('event_until_us', 0);

-- Storage: executions, their rollups, dead letters, schedules.
CREATE TABLE executions (
    finished_us INTEGER NOT NULL,
    id TEXT NOT NULL,
    job_id TEXT NOT NULL,
    run INTEGER NOT NULL,
    type TEXT NOT NULL,
    queue TEXT NOT NULL,
    state TEXT NOT NULL,
    record BLOB NOT NULL,
    PRIMARY KEY (finished_us, id)
) WITHOUT ROWID;
CREATE INDEX executions_job ON executions (job_id, run);
CREATE INDEX executions_type ON executions (type, finished_us, id);
CREATE INDEX executions_queue ON executions (queue, finished_us, id);
CREATE INDEX executions_state ON executions (state, finished_us, id);

-- Executions that were counted but not stored ([history] record), so that a repeat is not counted again.
CREATE TABLE counted (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    finished_us INTEGER NOT NULL
);

CREATE TABLE rollups (
    minute INTEGER NOT NULL,               -- minutes since the epoch
    type TEXT NOT NULL,
    completed INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    dead INTEGER NOT NULL DEFAULT 0,
    cancelled INTEGER NOT NULL DEFAULT 0,
    snoozed INTEGER NOT NULL DEFAULT 0,
    returned INTEGER NOT NULL DEFAULT 0,
    lost INTEGER NOT NULL DEFAULT 0,
    duration_ms REAL NOT NULL DEFAULT 0,   -- sum over the runs in the histogram
    histogram BLOB NOT NULL,
    PRIMARY KEY (minute, type)
) WITHOUT ROWID;

CREATE TABLE dead_letters (
    number INTEGER PRIMARY KEY,
    job_id TEXT NOT NULL,
    death INTEGER NOT NULL,
    died_us INTEGER NOT NULL,
    type TEXT NOT NULL,
    queue TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    state TEXT NOT NULL,
    requeueing_us INTEGER,
    requeued_us INTEGER,
    requeue_count INTEGER NOT NULL,
    record BLOB NOT NULL,
    UNIQUE (job_id, death)
);
CREATE INDEX dead_letters_died ON dead_letters (died_us, job_id, death);
CREATE INDEX dead_letters_state ON dead_letters (state, died_us, job_id, death);
CREATE INDEX dead_letters_type ON dead_letters (type, state, died_us, job_id, death);
CREATE INDEX dead_letters_queue ON dead_letters (queue, state, died_us, job_id, death);
CREATE INDEX dead_letters_fingerprint ON dead_letters (state, fingerprint, died_us, job_id, death, type, queue);
CREATE INDEX dead_letters_requeueing ON dead_letters (requeueing_us) WHERE state = 'requeueing';

CREATE TABLE dead_letter_counts (
    state TEXT NOT NULL,
    type TEXT NOT NULL,
    queue TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (state, type, queue)
) WITHOUT ROWID;
CREATE TRIGGER dead_letters_stored AFTER INSERT ON dead_letters BEGIN
    INSERT INTO dead_letter_counts (state, type, queue, count) VALUES (new.state, new.type, new.queue, 1)
    ON CONFLICT (state, type, queue) DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER dead_letters_moved AFTER UPDATE OF state ON dead_letters BEGIN
    UPDATE dead_letter_counts SET count = count - 1 WHERE state = old.state AND type = old.type AND queue = old.queue;
    INSERT INTO dead_letter_counts (state, type, queue, count) VALUES (new.state, new.type, new.queue, 1)
    ON CONFLICT (state, type, queue) DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER dead_letters_forgotten AFTER DELETE ON dead_letters BEGIN
    UPDATE dead_letter_counts SET count = count - 1 WHERE state = old.state AND type = old.type AND queue = old.queue;
END;

CREATE TABLE schedules (
    name TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    enabled INTEGER NOT NULL,
    next_run_us INTEGER,
    record BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX schedules_due ON schedules (next_run_us) WHERE enabled = 1;

CREATE TABLE ticks (
    schedule TEXT NOT NULL,
    due_us INTEGER NOT NULL,
    claimed_us INTEGER NOT NULL,
    sent INTEGER NOT NULL DEFAULT 0,
    record BLOB NOT NULL,
    PRIMARY KEY (schedule, due_us)
) WITHOUT ROWID;
CREATE INDEX ticks_unsent ON ticks (claimed_us) WHERE sent = 0;
