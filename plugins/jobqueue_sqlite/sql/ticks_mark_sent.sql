-- Mark a tick as sent.
UPDATE ticks SET sent = 1 WHERE schedule = :schedule AND due_us = :due_us AND sent = 0
