-- The rollups of the minutes from :first to :last, both included.
SELECT type, completed, failed, dead, cancelled, snoozed, returned, lost, duration_ms, histogram
FROM rollups WHERE minute BETWEEN :first AND :last
