"""The API under a WSGI server that is not ours: started by its user, with their own flags."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Self

from jobqueue_api.application import create_app
from jobqueue_api.section import ApiSection, is_loopback
from jobqueue_core import ConfigError, logs
from jobqueue_core.app import App
from jobqueue_core.keys import KeyRing

from .closing import Closing

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication

__all__ = ["OwnServer"]

_log = logging.getLogger("jobqueue.api")

_GLANCE: Final = 0.1
"""How often to look whether the server has been told to stop, in seconds."""


class OwnServer:
    """A WSGI application that makes itself in each process, when the first request comes: that is certain to be after any fork.

    Args:
        app: Settings and plugins; nothing of it is opened here.

    Raises:
        ConfigError: A key file cannot be read; or the server, as far as it can be asked by now, listens where others reach it, and there are no
            keys.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._section: ApiSection = app.settings.section("api")
        KeyRing(self._section.keys, app.settings.folder)
        self._anybody = bool(self._section.keys) or self._section.allow_anonymous
        self._lock = threading.Lock()
        self._made: tuple[int, WSGIApplication] | None = None
        self._check()

    @classmethod
    def from_config(cls) -> Self:
        """The application of ``JOBQUEUE_CONFIG``, and its log.

        Raises:
            ConfigError: With every problem found.
        """
        app = App.from_config()
        logs.configure(app.settings.log)
        return cls(app)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Serve a request."""
        made = self._made
        if made is None or made[0] != os.getpid():
            made = self._make()
        return made[1](environ, start_response)

    def _make(self) -> tuple[int, WSGIApplication]:
        with self._lock:
            if self._made is None or self._made[0] != os.getpid():
                self._check()
                closing = Closing()
                # Each process has an app of its own: what another one has opened is no good here.
                served = create_app(App(self._app.settings, self._app.plugins), closing=closing)
                threading.Thread(target=_watch, args=(closing,), name="jobqueue-closing", daemon=True).start()
                self._made = os.getpid(), served
            return self._made

    def _check(self) -> None:
        """Refuse to serve other machines without keys, as far as it can be told: by now there may be no gunicorn's worker, or none at all."""
        addresses = [one.getsockname() for one in getattr(_gunicorn_worker(), "sockets", ())]
        # A socket in the file system has a path for address.
        public = [one[0] for one in addresses if isinstance(one, tuple) and not is_loopback(one[0])]
        if public and not self._anybody:
            problem = f"api.keys: {public[0]} can be reached from other machines: add [[api.keys]], or say allow_anonymous = true"
            _log.error("cannot serve", extra={"fields": {"error": problem}})
            raise ConfigError([problem])


def _gunicorn_worker() -> Any:
    """Gunicorn's worker in this process; None where there is none."""
    return getattr(signal.getsignal(signal.SIGTERM), "__self__", None)


def _watch(closing: Closing) -> None:
    """Begin *closing* when gunicorn's worker has been told to stop.

    Not by a handler of our own: this thread may not set one, and with ``--preload`` gunicorn sets its own after we have been imported.
    """
    worker = _gunicorn_worker()
    while getattr(worker, "alive", True) and not closing.wait(_GLANCE):
        pass
    closing.begin()
