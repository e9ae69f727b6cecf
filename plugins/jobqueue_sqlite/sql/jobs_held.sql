-- What a settlement or release must know of the jobs of :numbers (JSON array); their records are not read.
SELECT number, queue, priority, state, lease_no, settled_no, cancel_requested, progress, held_until_us
FROM jobs
WHERE number IN (SELECT value FROM json_each(:numbers))
