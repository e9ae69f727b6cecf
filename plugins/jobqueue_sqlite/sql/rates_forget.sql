-- Drop slots that no rate needs any more.
DELETE FROM rates WHERE (queue, slot) IN (SELECT queue, slot FROM rates WHERE slot < :slot LIMIT :limit)
