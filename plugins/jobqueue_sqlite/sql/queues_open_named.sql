-- Those of :queues (JSON array) that have jobs to hand out, in the order given.
SELECT queues.name FROM json_each(:queues) AS wanted JOIN queues ON queues.name = wanted.value
WHERE paused = 0 AND critical + high + medium + low > 0
ORDER BY wanted.key
