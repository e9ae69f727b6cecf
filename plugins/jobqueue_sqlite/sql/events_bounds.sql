-- The last number given out, the number before the first event that a reader can still get, and until when the log is written.
SELECT
    (SELECT value FROM numbers WHERE name = 'event'),
    (SELECT value FROM numbers WHERE name = 'event_base'),
    (SELECT value FROM numbers WHERE name = 'event_until_us')
