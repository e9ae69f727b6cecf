-- A column for executions_list_by_state: whether an execution is the last of its job before :finished_until. Asked of the rows of a page only.
-- OFFSET 0 is a fence: see executions_last_of_jobs.
NOT EXISTS (
    SELECT FROM (
        SELECT known.finished_at, known.id FROM job_executions AS known
        WHERE known.job_id = execution.job_id AND known.finished_at >= execution.finished_at
        OFFSET 0
    ) AS later
    WHERE (later.finished_at, later.id) > (execution.finished_at, execution.id) AND later.finished_at < %(finished_until)s
)
