-- Scheduled and retrying jobs whose time has come, those due first.
SELECT number, queue, priority, state FROM jobs WHERE due_us <= :now_us ORDER BY due_us, number LIMIT :limit
