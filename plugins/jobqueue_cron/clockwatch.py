"""Tells when this host's clock and the broker's differ: ticks go by the broker's, people read the host's."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Final

__all__ = ["ClockWatch"]

_log = logging.getLogger("jobqueue.cron")
_EVERY: Final = 60.0
_TOLERATED: Final = timedelta(seconds=5)


def _host_time() -> datetime:
    return datetime.now(UTC)


class ClockWatch:
    """Looks once a minute, and says when they part and when they meet again.

    Args:
        broker_time: Asks the broker.
        host_time: Asks this host.
    """

    def __init__(self, broker_time: Callable[[], datetime], host_time: Callable[[], datetime] = _host_time) -> None:
        self._broker_time = broker_time
        self._host_time = host_time
        self._next = float("-inf")
        self._apart = False

    def look(self) -> None:
        """Look, if it is time to."""
        if monotonic() < self._next:
            return
        self._next = monotonic() + _EVERY
        before, there, after = self._host_time(), self._broker_time(), self._host_time()
        # The truth lies between the two readings, so what is outside of them is skew for certain.
        ahead, behind = before - there, there - after
        apart = max(ahead, behind) > _TOLERATED
        if apart != self._apart:
            self._apart = apart
            if apart:
                facts = {"host_is": "ahead" if ahead > behind else "behind", "seconds": round(max(ahead, behind).total_seconds(), 1)}
                _log.warning("this host's clock is wrong, or the broker's; schedules go by the broker's", extra={"fields": facts})
            else:
                _log.info("this host's clock and the broker's agree again")
