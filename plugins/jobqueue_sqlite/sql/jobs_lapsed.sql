-- Jobs whose lease has run out, longest first.
SELECT job_rows.* FROM jobs JOIN job_rows ON job_rows.number = jobs.number
WHERE jobs.lease_until_us <= :now_us
ORDER BY jobs.lease_until_us
LIMIT :limit
