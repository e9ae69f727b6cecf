"""The chores: jobs that have become due are made available, jobs of dead workers are taken back, what is past its retention is forgotten."""

from __future__ import annotations

import heapq
import logging
import threading
from time import monotonic
from typing import TYPE_CHECKING, Final

from jobqueue_core.errors import BrokerError
from jobqueue_core.observers import Observers
from jobqueue_core.reclaimed import announce
from jobqueue_core.service import Exit, Stop

if TYPE_CHECKING:
    from datetime import timedelta

    from jobqueue_core.broker import Upkeep

__all__ = ["UpkeepService"]

_log = logging.getLogger("jobqueue.upkeep")
_BATCH: Final = 200
_RECLAIM: Final = 1.0
_PRUNE: Final = 10.0
_SLOW: Final = 1.0
_AFTER_OUTAGE: Final = 3.0
"""Seconds: longer than a worker's longest pause between two tries to settle."""


class UpkeepService:
    """Runs upkeep until it is stopped. Every worker and scheduler has one; any number may run at once.

    Args:
        broker: Whose chores.
        poll_interval: The longest time between two looks for due jobs.
        max_crashes: A job that has lost so many workers is dead.
        observers: Told of jobs that have died so.
    """

    def __init__(self, broker: Upkeep, *, poll_interval: timedelta, max_crashes: int, observers: Observers | None = None) -> None:
        self._observers = observers or Observers()
        self._broker = broker
        self._poll_seconds = poll_interval.total_seconds()
        self._max_crashes = max_crashes
        self._bell = threading.Event()
        self._next = float("-inf")
        self._due: list[float] = []
        self._due_lock = threading.Lock()
        self._reclaim_at = float("-inf")
        self._prune_at = float("-inf")
        self._silent = False

    def due_in(self, delay: timedelta) -> None:
        """Say that a job will be due after *delay*, so that a short retry does not wait for the next look."""
        if delay.total_seconds() >= self._poll_seconds:
            return
        due = monotonic() + delay.total_seconds()
        with self._due_lock:
            heapq.heappush(self._due, due)
            first = self._due[0] == due
        if first:
            self._bell.set()

    def run(self, stop: Stop) -> Exit:
        """Do the chores until *stop* rises."""
        stop.listen(lambda _level: self._bell.set())
        while not stop.level:
            now = monotonic()
            if now >= self._next or self._is_due(now):
                self._next = now + self._poll_seconds
                self._chores(now, stop)
            self._bell.wait(max(0.0, self._wake_at() - monotonic()))
            self._bell.clear()
        return Exit.OK

    def _is_due(self, now: float) -> bool:
        with self._due_lock:
            due = False
            while self._due and self._due[0] <= now:
                heapq.heappop(self._due)
                due = True
            return due

    def _wake_at(self) -> float:
        with self._due_lock:
            return min(self._next, self._due[0]) if self._due else self._next

    def _chores(self, now: float, stop: Stop) -> None:
        try:
            promoted = self._broker.promote(_BATCH)
            slow = monotonic() - now > _SLOW
            while promoted == _BATCH and not stop.level:
                promoted = self._broker.promote(_BATCH)
            if self._silent or slow:
                # The broker was away or locked: workers that live come first with what they could not renew or settle meanwhile.
                self._reclaim_at = monotonic() + _AFTER_OUTAGE - _RECLAIM
            if now - self._reclaim_at >= _RECLAIM:
                self._reclaim_at = now
                while True:
                    reclaimed = self._broker.reclaim(_BATCH, max_crashes=self._max_crashes)
                    announce(reclaimed, self._observers)
                    if reclaimed.requeued + reclaimed.dead + reclaimed.cancelled < _BATCH or stop.level:
                        break
            if now - self._prune_at >= _PRUNE:
                self._prune_at = now
                while self._broker.prune(_BATCH) == _BATCH and not stop.level:
                    pass
            self._silent = False
        except BrokerError as error:
            if not self._silent:
                _log.warning("upkeep waits for the broker: %s", error)
            self._silent = True
