-- Ask a running job to stop.
UPDATE jobs SET cancel_requested = 1 WHERE number = :number
