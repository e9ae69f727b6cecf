-- Say that a worker lives.
INSERT INTO workers (id, beat_us, record) VALUES (:id, :beat_us, :record)
ON CONFLICT (id) DO UPDATE SET beat_us = excluded.beat_us, record = excluded.record
