"""Handlers in processes of their own, which can be killed: what the worker starts, and what runs in there (``isolation="process"``)."""
