-- Say that a running worker serves a type.
INSERT INTO types (type, seen_us, record) VALUES (:type, :seen_us, :record)
ON CONFLICT (type) DO UPDATE SET seen_us = excluded.seen_us, record = excluded.record
