"""Supervision: what ``jobqueue-run`` starts, watches, replaces and stops. Its command line is ``run.py``."""
