"""Decides when a worker has had its time, and a fresh process is to take its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobqueue_core.worker.tuning import resident_bytes

if TYPE_CHECKING:
    from collections.abc import Collection

    from jobqueue_core.worker.loopwatch import LoopWatch
    from jobqueue_core.worker.options import WorkerOptions
    from jobqueue_core.worker.run import Run

__all__ = ["Recycling"]

_MAX_LEAKED: Final = 5
_LOOP_PATIENCE: Final = 2.0
"""Seconds that an event loop may owe a sign of life once a handler in it did not end."""
_CHECK_RSS: Final = 1.0


class Recycling:
    """Watches for reasons to be replaced."""

    def __init__(self, options: WorkerOptions, loop: LoopWatch) -> None:
        self._options = options
        self._loop = loop
        self._look_at = 0.0

    def reason(self, now: float, *, started: int, leaked: Collection[Run], loop_silent: float) -> str | None:
        """Why the process is to be replaced; None when it may go on.

        Args:
            now: The monotonic clock.
            started: How many runs it has started.
            leaked: The runs whose handlers have been written off and still live.
            loop_silent: For how many seconds the event loop has been silent.
        """
        if loop_silent > _LOOP_PATIENCE and any(run.plan.isolation == "async" for run in leaked):
            # The written-off handler keeps the loop itself: nothing asynchronous will ever run here again.
            run, place = self._loop.culprit()
            who = "a handler" if run is None else f"the handler of {run.lease.job.type!r}"
            return f"the event loop does not answer; {who} has it, at {place}"
        if len(leaked) >= _MAX_LEAKED:
            return f"{len(leaked)} handlers do not end"
        if self._options.max_jobs is not None and started >= self._options.max_jobs:
            return f"max_jobs ({self._options.max_jobs}) reached"
        return self._too_large(now)

    def _too_large(self, now: float) -> str | None:
        most = self._options.max_rss
        if most is None or now < self._look_at:
            return None
        self._look_at = now + _CHECK_RSS
        size = resident_bytes()
        return f"max_rss ({most} bytes) reached: {size}" if size > most else None
