-- How many dead letters there are by state, type and queue, from the counters that triggers keep.
SELECT coalesce(sum(count), 0) FROM dead_letter_counts
WHERE (:state IS NULL OR state = :state) AND (:type IS NULL OR type = :type) AND (:queue IS NULL OR queue = :queue)
