-- Put an execution on its way to storage.
INSERT INTO outbox_history (at_us, record) VALUES (:at_us, :record)
