-- Store a claimed tick. No row changes when it exists.
INSERT INTO ticks (schedule, due_us, claimed_us, sent, record) VALUES (:schedule, :due_us, :claimed_us, :sent, :record)
ON CONFLICT (schedule, due_us) DO NOTHING
