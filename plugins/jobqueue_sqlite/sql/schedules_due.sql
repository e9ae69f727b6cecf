-- Schedules that fire and whose next run is not after :now_us, longest due first.
SELECT record, version, name FROM schedules WHERE enabled = 1 AND next_run_us <= :now_us ORDER BY next_run_us LIMIT :limit
