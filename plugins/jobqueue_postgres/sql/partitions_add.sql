-- Make a partition; false when somebody else has.
SELECT jobqueue_add_partition(%(starts_at)s, %(ends_at)s)
