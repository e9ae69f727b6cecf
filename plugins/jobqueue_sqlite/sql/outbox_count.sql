-- How many rows wait, counted. For doctor and tests only: it walks both tables.
SELECT (SELECT count(*) FROM outbox_history), (SELECT count(*) FROM outbox_dead)
