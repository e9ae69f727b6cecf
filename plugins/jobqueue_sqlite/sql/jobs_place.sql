-- Write a job down after a transition that ended a lease or a wait, and forget what only a lease needs.
-- :settled_no is null when the transition was nobody's settlement or release.
UPDATE jobs
SET state = :state, record = :record, deaths = :deaths, suspect = :suspect, ready = :ready, ready_since_us = :ready_since_us, due_us = :due_us,
    expires_us = :expires_us, forget_us = :forget_us, settled_no = coalesce(:settled_no, settled_no), lease_no = NULL, lease_until_us = NULL,
    lease_us = NULL, worker_id = NULL, started_us = NULL, progress = NULL, cancel_requested = 0
WHERE number = :number
