-- Make sure that a queue is known.
INSERT INTO queues (name) VALUES (:name) ON CONFLICT (name) DO NOTHING
