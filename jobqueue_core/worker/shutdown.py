"""Stops a worker in order: what runs may finish, what does not is given back, everything is settled (DESIGN R6, R7)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING, Final

import attrs

from jobqueue_core.service import Stop, StopLevel
from jobqueue_core.worker.holdings import Holdings
from jobqueue_core.worker.settlement import Settler
from jobqueue_core.worker.watchdog import Watchdog

if TYPE_CHECKING:
    from jobqueue_core.worker.run import Run

__all__ = ["Shutdown"]

_NOTICE: Final = 1.0
"""How long handlers may take to notice a shutdown once its grace is over, in seconds; then their end is forced. At once, half of it."""
_FORCED: Final = 0.5
"""How long that may take. At once, half of it."""
_FLUSH: Final = 10.0
"""How long what has ended may take to be settled."""
_FLUSH_AT_ONCE: Final = 3.0
_LOOK: Final = 0.01


@attrs.frozen(kw_only=True)
class Shutdown:
    """The end of one worker's work.

    Args:
        grace: How long handlers may go on.
        lease: How long leases are, for what could not be settled.
    """

    holdings: Holdings
    watchdog: Watchdog
    settler: Settler
    stop: Stop
    grace: timedelta
    lease: timedelta

    def carry_out(self, lessee: threading.Thread, settler: threading.Thread) -> int:
        """Do it, in the calling thread; nothing is to be started any more.

        Returns:
            How much was left behind: handlers that do not end, and jobs that could not be settled.
        """
        at_once = self.stop.level is StopLevel.AT_ONCE
        self._let_finish(0.0 if at_once else self.grace.total_seconds())
        patience = 0.5 if self.stop.level is StopLevel.AT_ONCE else 1.0
        self._insist(self._ask, _NOTICE * patience)
        self._insist(self._force, _FORCED * patience)
        flushed_by = monotonic() + (_FLUSH_AT_ONCE if self.stop.level is StopLevel.AT_ONCE else _FLUSH)
        lessee.join((flushed_by - monotonic()) / 2)
        # What does not end is given back last, when all else has been settled, and the process exits right after.
        for run in list(self.holdings.running.values()):
            self.watchdog.write_off(run)
        self.settler.finish()
        settler.join(max(flushed_by - monotonic(), 0.0))
        return len(self.holdings.written_off) + self.settler.left_behind(self.lease)

    def _let_finish(self, grace: float) -> None:
        deadline = monotonic() + grace
        while self.holdings.running and monotonic() < deadline and not self.stop.wait(2 * _LOOK, level=StopLevel.AT_ONCE):
            self.watchdog.tick(monotonic())

    def _insist(self, step: Callable[[Run], None], patience: float) -> None:
        deadline = monotonic() + patience
        while self.holdings.running and monotonic() < deadline:
            for run in list(self.holdings.running.values()):
                step(run)
            time.sleep(_LOOK)

    def _ask(self, run: Run) -> None:
        self.watchdog.end(run, "shutdown", monotonic())

    def _force(self, run: Run) -> None:
        if not run.forced:
            self.watchdog.force(run, monotonic())
