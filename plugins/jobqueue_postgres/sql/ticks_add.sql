-- Store a claimed tick. No row changes when it exists.
INSERT INTO job_schedule_ticks (schedule, due_at, claimed_at, sent, job_id, record)
VALUES (%(schedule)s, %(due_at)s, %(claimed_at)s, %(sent)s, %(job_id)s, %(record)s)
ON CONFLICT (schedule, due_at) DO NOTHING
