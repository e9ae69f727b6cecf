-- Drop types that no worker has served for long.
DELETE FROM types WHERE type IN (SELECT type FROM types WHERE seen_us <= :before_us LIMIT :limit)
