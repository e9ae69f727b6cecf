-- All queues but those of :queues (JSON array) that have jobs to hand out.
SELECT name FROM queues
WHERE paused = 0 AND critical + high + medium + low > 0 AND name NOT IN (SELECT value FROM json_each(:queues))
ORDER BY name
