-- Forget the ticks of a deleted schedule that have become jobs.
DELETE FROM job_schedule_ticks WHERE schedule = %(schedule)s AND sent
