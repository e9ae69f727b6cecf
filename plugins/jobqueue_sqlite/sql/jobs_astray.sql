-- Jobs whose columns contradict each other. For doctor and tests only: it walks the whole table.
SELECT id, state FROM jobs
WHERE (ready IS NOT NULL) <> (state = 'queued')
    OR (due_us IS NOT NULL) <> (state IN ('scheduled', 'retrying'))
    OR (lease_until_us IS NOT NULL) <> (state = 'processing')
    OR (lease_no IS NOT NULL) <> (state = 'processing')
    OR (forget_us IS NOT NULL) <> (state IN ('completed', 'dead', 'cancelled'))
ORDER BY number
LIMIT :limit
