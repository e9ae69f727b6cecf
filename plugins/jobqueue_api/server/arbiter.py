"""Gunicorn's arbiter, in a child of ``jobqueue-run``: keeps processes that serve, and replaces them all when the configuration has changed."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter as GunicornArbiter

from jobqueue_api.application import create_app
from jobqueue_core.app import App
from jobqueue_core.service import Exit, StopLevel

from .closing import Closing
from .gunicornlog import GunicornLog
from .listening import ask_to_come_later, shown
from .serving import ServingProcess

if TYPE_CHECKING:
    from jobqueue_api.section import ApiSection
    from jobqueue_core.settings import Settings

__all__ = ["Arbiter", "Served"]

_log = logging.getLogger("jobqueue.api")

_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - gunicorn's files there have no name
_BEYOND_GRACE: Final = 5
"""How much longer than the grace to wait for a process that has to stop, in seconds."""
_FIRST_DELAY: Final = 0.1
_LAST_DELAY: Final = 5.0
_NEWS: Final = struct.Struct("!?I")
_HELD_BACK: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _options(settings: Settings) -> dict[str, Any]:
    """Gunicorn's settings; what it would else take from the environment is said as well."""
    section: ApiSection = settings.section("api")
    return {
        "bind": [],
        "workers": section.workers,
        "threads": section.threads,
        "worker_class": ServingProcess,
        "worker_tmp_dir": str(_MEMORY) if os.access(_MEMORY, os.W_OK) else None,
        "graceful_timeout": int(settings.worker.shutdown_timeout.total_seconds()) + _BEYOND_GRACE,
        "logger_class": GunicornLog,
        "errorlog": "-",
        "control_socket_disable": True,
        "forwarded_allow_ips": ",".join(section.trusted_proxies),
        "forwarder_headers": "",
        "secure_scheme_headers": {"X-FORWARDED-PROTO": "https"},
        "limit_request_line": 0,  # as long as a whole head may be: a cursor and a filter or two take some thousand bytes
        "limit_request_fields": 100,
        "limit_request_field_size": 8190,
    }


class Served(BaseApplication):
    """What gunicorn serves: the application of a configuration, made in each process that serves it.

    Args:
        app: The configuration; nothing of it is opened.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self.closing = Closing()
        self.lifeline, self._lifeline_held = os.pipe()
        """Ends with the arbiter: nobody else holds the other end."""
        self._news, self._report = os.pipe()
        os.set_blocking(self._news, False)
        super().__init__()

    def load_config(self) -> None:
        """Give gunicorn its settings."""
        for name, value in _options(self._app.settings).items():
            self.cfg.set(name, value)

    def exchange(self, app: App) -> None:
        """Serve another configuration from the next process on."""
        self._app = app
        self.do_load_config()

    @property
    def max_body(self) -> int:
        """The most bytes of a request's body."""
        return int(self._app.settings.section("api").max_body)

    @property
    def grace(self) -> float:
        """How long requests may take to end when a process stops, in seconds."""
        return self._app.settings.worker.shutdown_timeout.total_seconds()

    # In a process that serves ------------------------------------------------------------------------------------------------------------

    def forked(self) -> None:
        """Leave to the arbiter what is its own."""
        os.close(self._lifeline_held)
        os.close(self._news)

    def load(self) -> Any:
        """Make the application, with an app of the process's own."""
        self._app = App(self._app.settings, self._app.plugins)
        return create_app(self._app, closing=self.closing)

    def report(self, age: int, *, ready: bool) -> None:
        """Tell the arbiter that the process of that *age* serves; or that it has left requests behind."""
        with contextlib.suppress(OSError):
            os.write(self._report, _NEWS.pack(ready, age))

    def finish(self) -> None:
        """Close what the application has opened."""
        try:
            self._app.close()
        except Exception:  # noqa: BLE001 - brokers and storages are a third party's code
            _log.warning("cannot close", exc_info=True)

    # In the arbiter ----------------------------------------------------------------------------------------------------------------------

    def news(self) -> list[tuple[bool, int]]:
        """What processes have reported since the last call."""
        try:
            return list(_NEWS.iter_unpack(os.read(self._news, _NEWS.size * 512)))
        except BlockingIOError:
            return []


class Arbiter(GunicornArbiter):
    """Keeps as many processes as are configured.

    Signals are none of its business: it is told by :meth:`stop_soon` and :meth:`reload_soon`. Processes of a former configuration stop only when
    all of the new one serve; one that cannot start is tried again, ever more slowly, and does no harm to the others.

    It forks beside the thread that tells it, which is no danger as long as that thread does nothing else: all work is done in this one.

    Args:
        served: What they serve.
        listeners: Where they accept connections.
        reread: Reads the configuration anew; None when that is wrong.
    """

    def __init__(self, served: Served, listeners: Sequence[socket.socket], *, reread: Callable[[], App | None]) -> None:
        super().__init__(served)
        self.WORKERS: dict[int, ServingProcess] = {}
        self.LISTENERS = list(listeners)
        self.left_behind = False
        """Whether requests were cut off in the end."""
        self._reread = reread
        self._at_once = False
        self._outdated = 0
        """Processes up to this age serve a former configuration."""
        self._ready: set[int] = set()
        """The ages of those that serve."""
        self._starting: set[int] = set()
        self._stopping: set[int] = set()
        self._delay = _FIRST_DELAY
        self._not_before = 0.0

    def stop_soon(self, level: StopLevel) -> None:
        """Stop. For any thread."""
        self._at_once = level is StopLevel.AT_ONCE
        self.SIG_QUEUE.put_nowait(signal.SIGQUIT if self._at_once else signal.SIGTERM)

    def reload_soon(self) -> None:
        """Read the configuration anew. For any thread."""
        self.SIG_QUEUE.put_nowait(signal.SIGHUP)

    def serve(self) -> Exit:
        """Serve until told to stop."""
        try:
            self.run()
        except SystemExit as end:
            if end.code:
                return Exit.FAILED
        return Exit.ABANDONED if self.left_behind else Exit.OK

    # What gunicorn calls -------------------------------------------------------------------------------------------------------------------

    def init_signals(self) -> None:
        """Hear only of processes that end."""
        signal.signal(signal.SIGCHLD, self.signal_chld)

    def start(self) -> None:
        """Say where it listens."""
        super().start()
        where = ", ".join(shown(one) for one in self.LISTENERS)
        _log.info("listening", extra={"fields": {"url": where, "processes": self.cfg.workers, "threads": self.cfg.threads}})

    def reload(self) -> None:
        """Go over to the configuration as it is now, if it is right."""
        app = self._reread()
        if app is None:
            return
        self.app.exchange(app)
        self.setup(self.app)
        self._outdated = self.worker_age
        self._delay, self._not_before = _FIRST_DELAY, 0.0

    def manage_workers(self) -> None:
        """Start what is missing, and stop what is outdated once nothing is."""
        self._hear()
        current = [one for one in self.WORKERS.values() if one.age > self._outdated]
        if time.monotonic() >= self._not_before:
            for _ in range(self.num_workers - len(current)):
                self.spawn_worker()
        if sum(one.age in self._ready for one in current) < self.num_workers:
            return
        for pid, one in list(self.WORKERS.items()):
            if one.age <= self._outdated and one.age not in self._stopping:
                self._stopping.add(one.age)
                self.kill_worker(pid, signal.SIGTERM)

    def _hear(self) -> None:
        """Hear which processes serve by now, and which will never."""
        for ready, age in self.app.news():
            if ready:
                self._ready.add(age)
                self._starting.discard(age)
                self._delay = _FIRST_DELAY
        living = {one.age for one in self.WORKERS.values()}
        self._ready &= living
        self._stopping &= living
        if failed := self._starting - living:
            self._starting -= failed
            self._not_before = time.monotonic() + self._delay
            self._delay = min(self._delay * 2, _LAST_DELAY)

    def spawn_worker(self) -> int:
        """Start a process; in that one, this never returns."""
        former = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
        try:
            pid: int = super().spawn_worker()
        except BaseException as end:
            if os.getpid() != self.pid:
                _end(end)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, former)
        self._starting.add(self.worker_age)
        # One that hangs before its first sign of life is to be missed too.
        self.WORKERS[pid].notify()
        return pid

    def stop(self, graceful: bool = True) -> None:  # noqa: FBT001, FBT002 - as gunicorn has it
        """Stop all processes."""
        for one in self.LISTENERS:
            ask_to_come_later(one)
        if self._at_once or not graceful:
            self.kill_workers(signal.SIGKILL)
        super().stop(graceful and not self._at_once)
        self.left_behind = any(not ready for ready, _age in self.app.news())


def _end(end: BaseException) -> NoReturn:
    """End the process here: what the arbiter was about to do is not its business, nor has it to wait for threads that hang."""
    code = end.code if isinstance(end, SystemExit) else 1
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    # Gunicorn gives up everything for two statuses; one process that cannot start is not worth that.
    os._exit(0 if not code else 1)
