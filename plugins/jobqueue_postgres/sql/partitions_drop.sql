-- Drop the oldest partition if all of it is before that.
SELECT jobqueue_drop_partition(%(before)s)
