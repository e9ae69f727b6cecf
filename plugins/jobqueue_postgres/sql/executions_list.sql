-- Executions, newest first. /*filter*/ stands for the conditions that are wanted (see filters.py).
SELECT /*columns*/ FROM job_executions AS execution
WHERE /*filter*/
ORDER BY finished_at DESC, id DESC
LIMIT %(limit)s OFFSET %(offset)s
