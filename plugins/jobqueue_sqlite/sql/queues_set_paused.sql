-- Pause or resume a queue, known or not.
INSERT INTO queues (name, paused) VALUES (:name, :paused) ON CONFLICT (name) DO UPDATE SET paused = excluded.paused
