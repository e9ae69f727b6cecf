-- Which migrations a schema has.
CREATE TABLE IF NOT EXISTS jobqueue_migrations (
    version integer PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    readable_from integer NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
