-- Since when the job that has been ready longest waits. Within a priority, and apart for jobs given back, ready order is the order of time.
SELECT min(since_us) FROM (
    SELECT (
        SELECT ready_since_us FROM jobs INDEXED BY jobs_ready
        WHERE queue = :queue AND suspect = lanes.suspect AND priority = lanes.priority AND ready >= lanes.floor
        ORDER BY ready LIMIT 1
    ) AS since_us
    FROM (
        SELECT s.value AS suspect, p.value AS priority, f.value AS floor
        FROM json_each('[0, 1]') AS s, json_each('[0, 1, 2, 3]') AS p, json_each('[-9223372036854775807, 0]') AS f
    ) AS lanes
)
