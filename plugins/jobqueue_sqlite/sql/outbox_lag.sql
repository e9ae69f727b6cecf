-- How many rows wait, how many were dropped, and when the oldest was put in.
SELECT
    (SELECT value FROM numbers WHERE name = 'outbox_history'),
    (SELECT value FROM numbers WHERE name = 'outbox_dead'),
    (SELECT value FROM numbers WHERE name = 'outbox_dropped'),
    (SELECT at_us FROM outbox_history ORDER BY number LIMIT 1),
    (SELECT at_us FROM outbox_dead ORDER BY number LIMIT 1)
