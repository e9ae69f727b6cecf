-- rollups_largest
-- The rollups of one minute, those with the most executions first; the last column says how many there are.
SELECT type, completed, failed, dead, cancelled, snoozed, returned, lost, duration_ms, histogram, count(*) OVER () AS types
FROM rollups WHERE minute = :minute
ORDER BY completed + failed + dead + cancelled + snoozed + returned + lost DESC, type LIMIT :limit
