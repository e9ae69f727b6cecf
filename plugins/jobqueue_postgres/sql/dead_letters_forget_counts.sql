-- Forget counters of which nothing is left.
DELETE FROM dead_letter_counts
WHERE (state, type, queue, fingerprint) IN (
    SELECT state, type, queue, fingerprint FROM dead_letter_counts WHERE count = 0 FOR UPDATE SKIP LOCKED
)
