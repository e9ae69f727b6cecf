"""The server: gunicorn's arbiter, told by ``jobqueue-run``, and processes that receive whole requests before a thread answers them."""
