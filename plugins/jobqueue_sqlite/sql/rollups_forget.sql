-- Forget rollups of minutes before :minute.
DELETE FROM rollups WHERE (minute, type) IN (SELECT minute, type FROM rollups WHERE minute < :minute LIMIT :limit)
