-- Store a claimed tick, which does not exist yet.
INSERT INTO ticks (schedule, due_us, claimed_us, sent, record) VALUES (:schedule, :due_us, :claimed_us, :sent, :record)
