-- Drop what will not be repeated any more: neither among the latest :keep that were counted, nor of the last day. Looks at the oldest only.
DELETE FROM counted
WHERE number IN (
    SELECT number FROM (SELECT number, finished_us FROM counted ORDER BY number LIMIT :limit)
    WHERE number <= (SELECT max(number) FROM counted) - :keep AND finished_us < :before_us
)
