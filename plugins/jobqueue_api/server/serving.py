"""The process that serves: a worker of gunicorn, in which one loop receives whole requests and threads answer them.

Why gunicorn's own thread worker is not used says docs/decisions/0028.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import threading
import time
from typing import Any, Final

from gunicorn.http import wsgi
from gunicorn.http.errors import ParseException
from gunicorn.workers.base import Worker

from .connection import Connection, Reply
from .loop import Loop
from .refusing import answer_to

__all__ = ["ServingProcess"]

_log = logging.getLogger("jobqueue.api")

_HANDSHAKE: Final = 0.1
"""How long the last clients may take to be connected, in seconds."""


class ServingProcess(Worker):
    """Serves an application in ``threads`` threads, each of which gets requests that are there already."""

    # Process ---------------------------------------------------------------------------------------------------------------------------

    def init_process(self) -> None:
        """Serve; returns when that has ended."""
        self.app.forked()
        super().init_process()

    def init_signals(self) -> None:
        """Hear SIGTERM from the arbiter; what a terminal sends to everybody is for ``jobqueue-run`` to count."""
        super().init_signals()
        for ignored in (signal.SIGINT, signal.SIGHUP):
            signal.signal(ignored, lambda _number, _frame: None)
        # Blocked since before the fork: until now nobody would have heard them.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGHUP, signal.SIGTERM))

    def load_wsgi(self) -> None:
        """Make the application. What keeps it from being made ends this process, and the arbiter tries again; it need not give up for it."""
        try:
            super().load_wsgi()
        except Exception as error:
            _log.exception("cannot serve", extra={"fields": {"pid": self.pid}})
            raise SystemExit(1) from error

    def run(self) -> None:
        """Serve until told to stop, or until the arbiter is gone; then finish what runs."""
        whole: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        self._loop = Loop(self.sockets, whole.put, max_body=self.app.max_body)
        self._loop.listen(self.PIPE[0], self._wake)
        self._loop.listen(self.app.lifeline, self._orphaned)
        for number in range(self.cfg.threads):
            threading.Thread(target=self._serve_all, args=(whole,), name=f"jobqueue-api-{number}", daemon=True).start()
        self._loop.accept()
        self.app.report(self.age, ready=True)
        while self.alive:
            if self._loop.turn():
                self.notify()
                self._loop.accept()
        self._finish()

    def _wake(self) -> None:
        """A signal has come, and its handler has run."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.PIPE[0], 4096)

    def _orphaned(self) -> None:
        """The arbiter is gone: whoever follows it wants the address."""
        self._loop.ignore(self.app.lifeline)
        self.alive = False

    def _finish(self) -> None:
        """Let go of the address, and finish what runs within the grace."""
        self.app.closing.begin()
        begun = time.monotonic()
        while (now := time.monotonic()) < begun + _HANDSHAKE:
            self._loop.turn(begun + _HANDSHAKE - now)
        self._loop.accept_no_more()
        until = begun + self.app.grace
        while self._loop.connections and time.monotonic() < until:
            if self._loop.turn(0.05):
                self.notify()
        if unfinished := self._loop.unfinished:
            _log.warning("requests cut off", extra={"fields": {"pid": self.pid, "requests": unfinished}})
            self.app.report(self.age, ready=False)
        self.app.finish()

    # Threads ---------------------------------------------------------------------------------------------------------------------------

    def _serve_all(self, whole: queue.SimpleQueue[Connection]) -> None:
        while True:
            connection = whole.get()
            try:
                self._serve(connection)
            except BaseException:  # noqa: BLE001 - a thread that ends would be missed
                _log.exception("a connection broke")
                self._loop.forget(connection)

    def _serve(self, connection: Connection) -> None:
        reply: Reply | None = None
        try:
            request = connection.request(self.cfg)
            facts = request, connection.sock, connection.client, connection.server, self.cfg
            reply, environ = wsgi.create(*facts, response_class=Reply, response_args=(self._loop.may_keep,))
            self._answer(reply, environ)
            connection.then = None if reply.should_close() else connection.proceed(request)
        except Exception as error:  # noqa: BLE001 - of a client that is gone, gunicorn's parser, or an application
            self._failed(connection, error, begun=reply is not None and reply.begun)
        else:
            self._loop.follow(connection)

    def _answer(self, reply: Reply, environ: dict[str, Any]) -> None:
        environ["wsgi.multithread"] = True
        if not self.alive:
            reply.force_close()
        pieces = self.wsgi(environ, reply.start_response)
        try:
            for piece in pieces:
                reply.write(piece)
            reply.close()
        finally:
            if hasattr(pieces, "close"):
                pieces.close()

    def _failed(self, connection: Connection, error: Exception, *, begun: bool) -> None:
        if not isinstance(error, (OSError, ParseException)):
            _log.error("a request failed", exc_info=error)
        if begun or (isinstance(error, OSError) and not isinstance(error, TimeoutError)):
            # Cut off, an answer that has begun cannot pass for a whole one.
            self._loop.forget(connection)
        else:
            self._loop.refuse(connection, answer_to(error))
