-- Store an execution. The caller has looked whether it is known.
INSERT INTO executions (finished_us, id, job_id, run, type, queue, state, record)
VALUES (:finished_us, :id, :job_id, :run, :type, :queue, :state, :record)
