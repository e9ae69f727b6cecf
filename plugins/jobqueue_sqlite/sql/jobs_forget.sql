-- Forget finished jobs that nobody needs any more; answers their ids.
DELETE FROM jobs
WHERE number IN (SELECT number FROM jobs WHERE forget_us <= :now_us ORDER BY forget_us LIMIT :limit)
RETURNING id
