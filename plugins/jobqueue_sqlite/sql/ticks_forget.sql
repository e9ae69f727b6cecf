-- Forget the ticks of a deleted schedule that have become jobs.
DELETE FROM ticks WHERE schedule = :schedule AND sent = 1
