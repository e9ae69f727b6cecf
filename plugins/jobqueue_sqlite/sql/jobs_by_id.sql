-- The jobs of :ids (JSON array) that are known.
SELECT job_rows.* FROM json_each(:ids) AS wanted JOIN job_rows ON job_rows.id = wanted.value
