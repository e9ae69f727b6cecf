-- Change a queue's counters by what a transaction did; the queue comes into being if it has to.
INSERT INTO queues (name, critical, high, medium, low, processing, scheduled, retrying, enqueued, completed, failed, dead, cancelled)
VALUES (:name, :critical, :high, :medium, :low, :processing, :scheduled, :retrying, :enqueued, :completed, :failed, :dead, :cancelled)
ON CONFLICT (name) DO UPDATE SET
    critical = critical + excluded.critical,
    high = high + excluded.high,
    medium = medium + excluded.medium,
    low = low + excluded.low,
    processing = processing + excluded.processing,
    scheduled = scheduled + excluded.scheduled,
    retrying = retrying + excluded.retrying,
    enqueued = enqueued + excluded.enqueued,
    completed = completed + excluded.completed,
    failed = failed + excluded.failed,
    dead = dead + excluded.dead,
    cancelled = cancelled + excluded.cancelled
