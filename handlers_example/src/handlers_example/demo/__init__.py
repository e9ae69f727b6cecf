"""``python -m handlers_example.demo``: a worker, some jobs, and what becomes of them. A copy of this package can do without it."""
