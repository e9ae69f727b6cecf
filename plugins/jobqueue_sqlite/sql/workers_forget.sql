-- Drop workers that have long been silent.
DELETE FROM workers WHERE id IN (SELECT id FROM workers WHERE beat_us <= :before_us LIMIT :limit)
