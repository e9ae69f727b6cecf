-- Ticks claimed before :before and not marked as sent, oldest first.
SELECT schedule, due_at, record, claimed_at, sent FROM job_schedule_ticks WHERE NOT sent AND claimed_at < %(before)s ORDER BY claimed_at LIMIT %(limit)s
