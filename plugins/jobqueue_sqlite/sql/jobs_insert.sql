-- Store a new job. Fails when its id or number is known: the caller has looked.
INSERT INTO jobs (id, type, queue, priority, state, record, deaths, suspect, ready, ready_since_us, due_us, expires_us, held_until_us)
VALUES (:id, :type, :queue, :priority, :state, :record, :deaths, :suspect, :ready, :ready_since_us, :due_us, :expires_us, :held_until_us)
