"""Notices when a handler keeps the event loop to itself, and says which one and where."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from jobqueue_core.worker.handlerloop import HandlerLoop
    from jobqueue_core.worker.holdings import Holdings
    from jobqueue_core.worker.run import Run

__all__ = ["LoopWatch"]

_log = logging.getLogger("jobqueue.worker")
_BLOCKED: Final = 1.0
"""Seconds without a sign of life that are worth a warning."""
_AGAIN: Final = 10.0
"""Seconds after which to warn again."""


class LoopWatch:
    """Watches one event loop, from another thread."""

    def __init__(self, loop: HandlerLoop, holdings: Holdings) -> None:
        self._loop = loop
        self._holdings = holdings
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

    def culprit(self) -> tuple[Run | None, str]:
        """Which run has the loop just now, if it is one's own task that has it, and where in the code it is."""
        task = asyncio.current_task(self._loop.loop)
        run = next((run for run in list(self._holdings.running.values()) if task is not None and run.task is task), None)
        return run, self._loop.place()

    def _warn(self, silent: float) -> None:
        run, place = self.culprit()
        facts: dict[str, object] = {"seconds": round(silent, 1), "at": place}
        if run is not None:
            facts |= run.lease.job.log_facts()
        remedy = "nothing else in it can go on; use 'await', or a plain 'def' handler"
        _log.warning("event loop blocked: %s", remedy, extra={"fields": facts})
