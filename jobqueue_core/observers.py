"""Observers: told of what has happened, unable to change it.

They are resolved once; with none, a worker or client does nothing for them. One that raises changes no outcome: its errors are counted and
logged, each observer's method at most once a minute.
"""

from __future__ import annotations

import inspect
import logging
import signal
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import timedelta

    from jobqueue_core.attempt import Outcome
    from jobqueue_core.broker import WorkerInfo
    from jobqueue_core.job import Job

__all__ = ["EVENTS", "Observer", "Observers", "misfit"]

EVENTS: Final = ("enqueued", "started", "finished", "retried", "dead", "worker_up", "worker_down")
"""What may be observed."""

_log = logging.getLogger("jobqueue.observers")
_SILENCE: Final = 60.0


class Observer:
    """What may be observed. Override what is of interest: a method that is not overridden is never called.

    Methods are plain functions. They run in the thread where the thing happened, after it has happened, and that thread waits for them: what
    takes time, as a call over the network does, belongs into a queue and a thread of the observer's own.
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
        self._silent_until: dict[str, float] = {}
        self._unlogged: Counter[str] = Counter()
        for name in EVENTS:
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
                    if _may_be_meant():
                        raise
                    self._failed(one)
                except BaseException:  # noqa: BLE001 - a third party's code: not even its SystemExit may change what it observes
                    self._failed(one)

        return tell

    def _failed(self, culprit: Callable[..., None]) -> None:
        observer = type(getattr(culprit, "__self__", culprit)).__qualname__
        name = f"{observer}.{getattr(culprit, '__name__', '?')}"
        with self._lock:
            self.errors += 1
            self._unlogged[name] += 1
            # Each method for itself: one that fails all the time must not hide one that fails now and then.
            if time.monotonic() < self._silent_until.get(name, 0.0):
                return
            self._silent_until[name] = time.monotonic() + _SILENCE
            count = self._unlogged.pop(name)
        _log.exception("observer raised", extra={"fields": {"observer": name, "errors": count}})


def _may_be_meant() -> bool:
    """Whether a KeyboardInterrupt may come from the terminal: elsewhere, or where SIGINT is handled otherwise, it is the observer's own."""
    return threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def misfit(observer: Observer) -> str | None:
    """What keeps *observer* from being told things; None when nothing does. Looked at, not called."""
    for name in EVENTS:
        if getattr(type(observer), name) is getattr(Observer, name):
            continue
        method = getattr(observer, name)
        shown = f"{type(observer).__qualname__}.{name}"
        if inspect.iscoroutinefunction(method):
            return f"{shown} is asynchronous, and observers are called, not awaited: make it a plain 'def'"
        expected = inspect.signature(getattr(Observer, name)).parameters
        facts = [one for one in expected if one != "self"]
        try:
            inspect.signature(method).bind(*facts)
        except TypeError:
            return f"{shown} takes {inspect.signature(method)}, and is called with ({', '.join(facts)})"
    return None
