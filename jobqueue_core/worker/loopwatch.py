"""Notices when a handler keeps the event loop to itself, and says which one and where."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from jobqueue_core.worker.runners.loop import LoopRunner

__all__ = ["LoopWatch"]

_log = logging.getLogger("jobqueue.worker")
_BLOCKED: Final = 1.0
"""Seconds without a sign of life that are worth a warning."""
_AGAIN: Final = 10.0
"""Seconds after which to warn again."""


class LoopWatch:
    """Watches one event loop, from another thread."""

    def __init__(self, loop: LoopRunner) -> None:
        self._loop = loop
        self._warn_at = _BLOCKED

    def look(self, now: float) -> float:
        """Warn if the loop is blocked; returns for how many seconds it has been silent at *now*, by the monotonic clock."""
        silent = self._loop.silent_for(now)
        if silent < _BLOCKED:
            self._warn_at = _BLOCKED
        elif silent >= self._warn_at:
            self._warn_at = silent + _AGAIN
            self._warn(silent)
        return silent

    def _warn(self, silent: float) -> None:
        run, place = self._loop.culprit()
        facts: dict[str, object] = {"seconds": round(silent, 1), "at": place}
        if run is not None:
            facts |= run.lease.job.log_facts()
        remedy = "nothing else in it can go on; use 'await', or a plain 'def' handler"
        _log.warning("event loop blocked: %s", remedy, extra={"fields": facts})
