"""Waiting for a change: of this process by a condition variable, of others by a cheap poll."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["Doorbell", "Watch"]

_POLL: Final = 0.012
"""Seconds between two looks at ``PRAGMA data_version``: new work of another process is seen within 20 ms."""


class Doorbell:
    """Rung when something has become available; several threads may wait. Made anew after a fork."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._rings = 0
        self._interrupts = 0
        self._waiters = 0
        self._interrupted = False

    def _mine(self) -> threading.Condition:
        if self._pid != os.getpid():
            self._reset()
        return self._changed

    def ring(self) -> None:
        """Wake everyone who waits."""
        with self._mine():
            self._rings += 1
            self._changed.notify_all()

    def interrupt(self) -> None:
        """Send everyone home who waits, or the next one if none does."""
        with self._mine():
            self._interrupts += 1
            self._interrupted = self._waiters == 0
            self._changed.notify_all()

    @contextmanager
    def watch(self, connection: sqlite3.Connection, seconds: float) -> Iterator[Watch]:
        """Watch for up to *seconds*, looking at other processes through *connection*."""
        with self._mine():
            interrupts = self._interrupts
            if self._interrupted and seconds > 0:
                interrupts -= 1
                self._interrupted = False
            self._waiters += seconds > 0
        try:
            yield Watch(self, connection, time.monotonic() + seconds, interrupts)
        finally:
            with self._mine():
                self._waiters -= seconds > 0

    def rings(self) -> int:
        """How often it has been rung."""
        return self._rings

    def wait(self, rings: int, interrupts: int, seconds: float) -> bool | None:
        """Wait until it has been rung since *rings* (True), or *seconds* have passed (False); None when interrupted since *interrupts*."""
        with self._mine():
            if self._rings == rings and self._interrupts == interrupts:
                self._changed.wait(seconds)
            return None if self._interrupts != interrupts else self._rings != rings


class Watch:
    """One thread's wait: look, and while there is nothing, call :meth:`changed`, then look again."""

    def __init__(self, bell: Doorbell, connection: sqlite3.Connection, deadline: float, interrupts: int) -> None:
        self._bell = bell
        self._connection = connection
        self._deadline = deadline
        self._interrupts = interrupts
        self._seen = (0, 0)

    def look(self) -> None:
        """Note how things stand, before looking for work: what happens from now on ends the wait."""
        self._seen = (self._bell.rings(), self._version())

    def changed(self) -> bool:
        """Wait; True when something may have changed, False when time is up or the wait was interrupted."""
        rings, version = self._seen
        while (remaining := self._deadline - time.monotonic()) > 0:
            match self._bell.wait(rings, self._interrupts, min(remaining, _POLL)):
                case None:
                    return False
                case True:
                    return True
                case _ if self._version() != version:
                    return True
        return False

    def _version(self) -> int:
        version: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
        return version
