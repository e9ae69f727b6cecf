-- One queue in numbers; columns as in queues_list.
SELECT
    name, paused, critical, high, medium, low, processing, scheduled, retrying, queues.enqueued, queues.completed, queues.failed, queues.dead,
    cancelled, coalesce(recent.enqueued, 0), coalesce(recent.completed, 0), coalesce(recent.failed, 0), coalesce(recent.dead, 0)
FROM queues, (
    SELECT sum(enqueued) AS enqueued, sum(completed) AS completed, sum(failed) AS failed, sum(dead) AS dead
    FROM rates WHERE queue = :name AND slot >= :slot
) AS recent
WHERE name = :name
