"""Clocks for tests: one that stands still until it is moved, and one that really waits."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

__all__ = ["Clock", "ManualClock", "WaitingClock"]


class Clock(Protocol):
    """How a test makes time pass for a broker. No test may rely on more than that *at least* the time asked for has passed."""

    @property
    def longest(self) -> timedelta | None:
        """The longest it can advance; tests that need more are skipped. None: any time."""

    def advance(self, duration: timedelta) -> None:
        """Return when *duration* has passed by the broker's clock."""


class ManualClock:
    """For brokers whose clock can be injected: calling it gives the time, which moves only by :meth:`advance`. Safe in any thread.

    Args:
        start: The first time (aware, UTC); None: the host's.
    """

    longest: timedelta | None = None

    def __init__(self, start: datetime | None = None) -> None:
        self._lock = threading.Lock()
        self._now = datetime.now(UTC) if start is None else start

    def __call__(self) -> datetime:
        """The time now."""
        with self._lock:
            return self._now

    def advance(self, duration: timedelta) -> None:
        """Move the time on by *duration*."""
        with self._lock:
            self._now += duration


class WaitingClock:
    """For brokers on a real server: :meth:`advance` really waits, and a little longer, for clocks do not run alike.

    Args:
        longest: Tests that need more time than this are skipped.
    """

    def __init__(self, *, longest: timedelta = timedelta(seconds=5)) -> None:
        self.longest: timedelta | None = longest

    def advance(self, duration: timedelta) -> None:
        """Wait for *duration*."""
        time.sleep(duration.total_seconds() * 1.01 + 0.02)
