-- Write an event down under the next number of the sequence.
INSERT INTO events (number, at_us, kind, data) VALUES (:number, :at_us, :kind, :data)
