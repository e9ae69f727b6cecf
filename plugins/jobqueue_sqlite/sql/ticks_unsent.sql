-- Ticks claimed before :before_us and not marked as sent, oldest first.
SELECT record, sent, schedule FROM ticks WHERE sent = 0 AND claimed_us < :before_us ORDER BY claimed_us LIMIT :limit
