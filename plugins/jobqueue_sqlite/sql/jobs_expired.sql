-- Jobs that wait although no run may start any more.
SELECT job_rows.* FROM jobs JOIN job_rows ON job_rows.number = jobs.number
WHERE jobs.expires_us <= :now_us
ORDER BY jobs.expires_us
LIMIT :limit
