-- Put right what a queue's counters say of where jobs are. For doctor.
UPDATE queues
SET critical = :critical, high = :high, medium = :medium, low = :low, processing = :processing, scheduled = :scheduled, retrying = :retrying
WHERE name = :name
