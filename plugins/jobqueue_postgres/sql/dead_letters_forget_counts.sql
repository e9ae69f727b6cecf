-- Forget counters of which nothing is left, but for those that somebody is at.
WITH empty AS MATERIALIZED (
    SELECT state, fingerprint, type, queue FROM dead_letter_counts WHERE count = 0 FOR UPDATE SKIP LOCKED
)
DELETE FROM dead_letter_counts AS kept USING empty
WHERE (kept.state, kept.fingerprint, kept.type, kept.queue) = (empty.state, empty.fingerprint, empty.type, empty.queue)
