-- Jobs by id, newest first, from below :before down to :floor: as many as one call may examine.
SELECT * FROM job_rows
WHERE id < :before AND id >= :floor
    AND (:state IS NULL OR state = :state) AND (:type IS NULL OR type = :type) AND (:queue IS NULL OR queue = :queue)
ORDER BY id DESC
LIMIT :limit
