-- The histogram of one minute and type.
SELECT histogram FROM rollups WHERE minute = :minute AND type = :type
