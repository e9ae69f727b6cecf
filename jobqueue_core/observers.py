"""Observers: told of what has happened, unable to change it.

They are resolved once; with none, a worker or client does nothing for them. One that raises changes no outcome: its errors are counted and
logged once a minute.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import timedelta

    from jobqueue_core.attempt import Outcome
    from jobqueue_core.broker import WorkerInfo
    from jobqueue_core.job import Job

__all__ = ["Observer", "Observers"]

_log = logging.getLogger("jobqueue.observers")
_SILENCE: Final = 60.0


class Observer:
    """What may be observed. Override what is of interest: a method that is not overridden is never called.

    Methods run in the thread where the thing happened, after it has happened; keep them short.
    """

    def enqueued(self, job: Job) -> None:
        """The broker has accepted a new job."""

    def started(self, job: Job) -> None:
        """A handler is about to start."""

    def finished(self, job: Job, outcome: Outcome, duration: timedelta) -> None:
        """A run has ended and its outcome is settled; *job* is the job as it was leased."""

    def retried(self, job: Job, delay: timedelta, error: str) -> None:
        """A run has failed and the job will be tried again after *delay*; follows ``finished``."""

    def dead(self, job: Job, reason: str, error: str) -> None:
        """A job has died; follows ``finished`` when a run ended so."""

    def worker_up(self, worker: WorkerInfo) -> None:
        """A worker has started in this process."""

    def worker_down(self, worker: WorkerInfo) -> None:
        """A worker in this process has stopped."""


class Observers:
    """All observers as one, safe to call.

    Each name (``enqueued``, ``started`` ...) is None when nobody overrides that method, else a function that calls those who do.
    """

    def __init__(self, observers: Sequence[Observer] = ()) -> None:
        self.errors = 0
        """How many calls have raised."""
        self._lock = threading.Lock()
        self._silent_until = 0.0
        self._unlogged = 0
        for name in ("enqueued", "started", "finished", "retried", "dead", "worker_up", "worker_down"):
            interested = [getattr(one, name) for one in observers if getattr(type(one), name) is not getattr(Observer, name)]
            setattr(self, name, self._tell(interested) if interested else None)

    enqueued: Callable[[Job], None] | None
    started: Callable[[Job], None] | None
    finished: Callable[[Job, Outcome, timedelta], None] | None
    retried: Callable[[Job, timedelta, str], None] | None
    dead: Callable[[Job, str, str], None] | None
    worker_up: Callable[[WorkerInfo], None] | None
    worker_down: Callable[[WorkerInfo], None] | None

    def _tell(self, interested: Sequence[Callable[..., None]]) -> Callable[..., None]:
        def tell(*facts: object) -> None:
            for one in interested:
                try:
                    one(*facts)
                except KeyboardInterrupt:
                    # Somebody at the terminal may mean it; in any other thread it can only come from the observer.
                    if threading.current_thread() is threading.main_thread():
                        raise
                    self._failed(one)
                except BaseException:  # noqa: BLE001 - a third party's code: not even its SystemExit may change what it observes
                    self._failed(one)

        return tell

    def _failed(self, culprit: Callable[..., None]) -> None:
        with self._lock:
            self.errors += 1
            self._unlogged += 1
            if time.monotonic() < self._silent_until:
                return
            self._silent_until = time.monotonic() + _SILENCE
            count, self._unlogged = self._unlogged, 0
        name = f"{type(getattr(culprit, '__self__', None)).__qualname__}.{culprit.__name__}"
        _log.exception("observer %s raised (%d errors since the last report)", name, count)
