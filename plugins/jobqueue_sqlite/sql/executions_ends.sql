-- Executions in :state, newest first, and whether they are the last of their jobs before :finished_until_us. /*filter*/ as in executions_list;
-- /*index*/ says along which index.
SELECT finished_us, id, record, NOT EXISTS (
    SELECT 1 FROM executions AS later INDEXED BY executions_job
    WHERE later.job_id = executions.job_id AND (later.finished_us, later.id) > (executions.finished_us, executions.id)
        AND later.finished_us < :finished_until_us
)
FROM executions /*index*/
WHERE state = :state AND /*filter*/
ORDER BY finished_us DESC, id DESC
LIMIT :limit
