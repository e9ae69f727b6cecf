"""How fast a worker is going, and so how much it may hold: what runs in some milliseconds, never more (DESIGN R1, R2)."""

from __future__ import annotations

from time import monotonic
from typing import Final

__all__ = ["LONGEST_BUFFER_SECONDS", "Pace"]

_MAX_BUFFERED: Final = 400
_BUFFER_SECONDS: Final = 0.006
"""How much work may be buffered: so little that a more urgent job is hardly held up by it."""
LONGEST_BUFFER_SECONDS: Final = 0.050
"""More work than this is not kept buffered, even when it was leased as less."""
_QUICK_SECONDS: Final = 0.001
_SETTLE_SECONDS: Final = 0.020
"""Handlers quicker than the first may have as many runs unsettled as the broker settles in the second."""
_MAX_QUICK: Final = 1_000
_SHORTEST: Final = 0.005
"""Seconds over which a rate can be told."""


class Pace:
    """Measures runs and settlements. Not locked: its owner is."""

    def __init__(self) -> None:
        self._finished = 0
        self._mean_seconds = 1.0
        self._settle_rate = 0.0
        self._quick = 0
        self._rate = 0.0
        self.buffer = 0
        """How many jobs may be buffered beyond the free slots: none while handlers are slow, hundreds for no-ops."""
        self._measured_at = monotonic()
        self._measured_finished = 0

    def finished(self, seconds: float) -> None:
        """Count a run that took *seconds*."""
        self._finished += 1
        self._mean_seconds += (seconds - self._mean_seconds) * 0.05

    def settled(self, count: int, seconds: float) -> None:
        """Note that the broker settled *count* runs in *seconds*."""
        rate = count / max(seconds, 1e-4)
        self._settle_rate = rate if rate > self._settle_rate else 0.8 * self._settle_rate + 0.2 * rate
        self._quick = min(_MAX_QUICK, int(self._settle_rate * _SETTLE_SECONDS))

    def measure(self) -> None:
        """Bring the rate of runs up to date: it rises at once, and falls gradually."""
        now = monotonic()
        elapsed = now - self._measured_at
        if elapsed < _SHORTEST:
            return
        rate = (self._finished - self._measured_finished) / elapsed
        # The longer the sample, the more it says.
        self._rate = rate if rate > self._rate else self._rate + (rate - self._rate) * min(1.0, max(0.3, elapsed / LONGEST_BUFFER_SECONDS))
        self._measured_at, self._measured_finished = now, self._finished
        self.buffer = min(_MAX_BUFFERED, int(self._rate * _BUFFER_SECONDS))

    @property
    def longest_buffer(self) -> int:
        """How many jobs may stay buffered, when handlers have become slower than they were when these were leased."""
        return int(self._rate * LONGEST_BUFFER_SECONDS)

    def unsettled(self, concurrency: int) -> int:
        """How many runs may be started and not settled: what a crash would repeat."""
        return max(2 * concurrency, self._quick) if self._mean_seconds < _QUICK_SECONDS else 2 * concurrency
