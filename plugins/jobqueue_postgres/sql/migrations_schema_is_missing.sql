-- Whether there is no schema of that name.
SELECT NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = %(schema)s)
