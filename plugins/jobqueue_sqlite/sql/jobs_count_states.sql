-- How many jobs are where, counted. For doctor and tests only: it walks the whole table.
SELECT queue, priority, state, count(*) FROM jobs WHERE forget_us IS NULL GROUP BY queue, priority, state
