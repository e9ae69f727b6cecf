"""Example handlers for jobqueue: a package to copy.

``handlers.py`` holds every handler and is what the entry point names. ``mail.py`` and ``csv_summary.py`` do the work and know nothing of
job queues. ``demo/`` is ``python -m handlers_example.demo``; a copy of this package can do without it.
"""
