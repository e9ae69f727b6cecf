-- All queues in numbers, with what ended in the slots from :slot on, by name.
SELECT
    name, paused, critical, high, medium, low, processing, scheduled, retrying, queues.enqueued, queues.completed, queues.failed, queues.dead,
    cancelled, coalesce(recent.enqueued, 0), coalesce(recent.completed, 0), coalesce(recent.failed, 0), coalesce(recent.dead, 0)
FROM queues LEFT JOIN (
    SELECT queue, sum(enqueued) AS enqueued, sum(completed) AS completed, sum(failed) AS failed, sum(dead) AS dead
    FROM rates WHERE slot >= :slot GROUP BY queue
) AS recent ON recent.queue = name
ORDER BY name
