-- Count what a transaction did in the current ten seconds.
INSERT INTO rates (queue, slot, enqueued, completed, failed, dead) VALUES (:queue, :slot, :enqueued, :completed, :failed, :dead)
ON CONFLICT (queue, slot) DO UPDATE SET
    enqueued = enqueued + excluded.enqueued,
    completed = completed + excluded.completed,
    failed = failed + excluded.failed,
    dead = dead + excluded.dead
