-- Put a dead letter on its way to storage.
INSERT INTO outbox_dead (at_us, record) VALUES (:at_us, :record)
