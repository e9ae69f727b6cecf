-- Executions, newest first. /*filter*/ stands for the conditions that are wanted (see filters.py).
SELECT finished_us, id, record FROM executions
WHERE /*filter*/
ORDER BY finished_us DESC, id DESC
LIMIT :limit OFFSET :offset
