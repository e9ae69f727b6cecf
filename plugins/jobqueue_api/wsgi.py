"""For servers of your own: ``gunicorn jobqueue_api.wsgi:app``, configured by ``JOBQUEUE_CONFIG``.

The configuration is read and checked on import; broker and storage are opened in the process that serves, so that ``--preload`` is no danger.
"""

from __future__ import annotations

from .server.ownserver import OwnServer

__all__ = ["app"]

app = OwnServer.from_config()
"""The WSGI application."""
