-- Some of the dead letters that were refused: others each time, so that none stands in the way of the rest.
SELECT job_id, death, record FROM dead_letters_refused ORDER BY random() LIMIT %(limit)s FOR UPDATE SKIP LOCKED
