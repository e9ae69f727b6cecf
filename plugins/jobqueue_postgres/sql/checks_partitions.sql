-- How many executions are in no partition (up to :most), and where the latest partition ends.
SELECT
    (SELECT count(*) FROM (SELECT FROM job_executions_default LIMIT %(most)s) AS strays)::integer,
    (SELECT max(ends_at) FROM jobqueue_partitions())
