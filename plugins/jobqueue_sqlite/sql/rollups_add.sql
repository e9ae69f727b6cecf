-- Add counts to a minute and type; the histogram replaces the one that was read in the same transaction.
INSERT INTO rollups (minute, type, completed, failed, dead, cancelled, snoozed, returned, lost, duration_ms, histogram)
VALUES (:minute, :type, :completed, :failed, :dead, :cancelled, :snoozed, :returned, :lost, :duration_ms, :histogram)
ON CONFLICT (minute, type) DO UPDATE SET
    completed = completed + excluded.completed,
    failed = failed + excluded.failed,
    dead = dead + excluded.dead,
    cancelled = cancelled + excluded.cancelled,
    snoozed = snoozed + excluded.snoozed,
    returned = returned + excluded.returned,
    lost = lost + excluded.lost,
    duration_ms = duration_ms + excluded.duration_ms,
    histogram = excluded.histogram
