"""When a server was last restarted, replaced by another, or had its clock set: from then on, leases have their whole length once more (DESIGN R9)."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Final

__all__ = ["Watch"]

_MICROSECONDS: Final = 1_000_000
_JUMP: Final = 5 * _MICROSECONDS
"""How far a server's clock and ours may drift apart between two looks. What is more was set by hand, or one of the two was suspended."""


class Watch:
    """Compares what is seen of servers with what was seen before. Threads need no lock: whoever comes second finds the same.

    Args:
        clock: Seconds that never jump.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._runs: dict[str, str] = {}
        self._looks: dict[str, tuple[int, float]] = {}
        self._quiet_us: dict[str, int] = {}

    @property
    def quiet_us(self) -> int:
        """The latest of what has happened, in microseconds of the servers' clocks; 0 when nothing has."""
        return max(self._quiet_us.copy().values(), default=0)

    def seen(self, role: str, run_id: str, uptime: int | None, now_us: int) -> None:
        """A connection was made.

        Args:
            role: Which server; those that take each other's place have one name.
            run_id: What the process calls itself: another one is another process.
            uptime: For how many whole seconds it has been running; None when it does not say.
            now_us: Its clock.
        """
        before = self._runs.get(role)
        self._runs[role] = run_id
        if before is None:
            # Whole seconds: it may have started up to a second later than they say.
            started_us = 0 if uptime is None else min(now_us - uptime * _MICROSECONDS + _MICROSECONDS, now_us)
            self._quiet_us[role] = max(self._quiet_us.get(role, 0), started_us)
        elif before != run_id:
            self._quiet_us[role] = now_us
        self.ticked(role, now_us)

    def ticked(self, role: str, now_us: int) -> None:
        """A server has said what time it is."""
        at = self._clock()
        before = self._looks.get(role)
        if before is not None and abs((now_us - before[0]) - (at - before[1]) * _MICROSECONDS) > _JUMP:
            self._quiet_us[role] = now_us
        self._looks[role] = (now_us, at)

    def moved(self, role: str) -> None:
        """What another server had is served by this one now."""
        look = self._looks.get(role)
        if look is None:
            self._runs[role] = ""  # whatever it calls itself when it is seen first, it was somebody else before
        else:
            self._quiet_us[role] = look[0] + int((self._clock() - look[1]) * _MICROSECONDS)
