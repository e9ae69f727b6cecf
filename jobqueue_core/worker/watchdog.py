"""Ends handlers: when their time is over, when somebody has asked for it, when the worker stops.

It has no connection to anything, so that a broker that is away delays no deadline. Any thread may call it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Final

import attrs

from jobqueue_core.worker.executor import Executor
from jobqueue_core.worker.holdings import Holdings
from jobqueue_core.worker.run import Run
from jobqueue_core.worker.runners import Runner

if TYPE_CHECKING:
    from jobqueue_core.context import StopReason

__all__ = ["Watchdog"]

_log = logging.getLogger("jobqueue.worker")
_TICK: Final = 0.1
_FORCE: Final = 1.0
"""How long a handler may live on after its end was forced, before its slot is written off."""


@attrs.define(kw_only=True)
class Watchdog:
    """Watches every handler that runs.

    Args:
        runner_of: Finds who runs a run.
    """

    holdings: Holdings
    executor: Executor
    worker_id: str
    runner_of: Callable[[Run], Runner]
    _ending: threading.Lock = attrs.field(factory=threading.Lock)

    def tick(self, now: float) -> None:
        """Do whatever is due at *now*, by the monotonic clock."""
        for run in list(self.holdings.running.values()):
            self._watch(run, now)

    def pause(self) -> float:
        """For how many seconds nothing will be due; at most a tenth of one."""
        deadlines = (run.deadline for run in list(self.holdings.running.values()) if run.deadline > 0)
        return max(0.005, min(_TICK, min(deadlines, default=float("inf")) - monotonic()))

    def end(self, run: Run, reason: StopReason, now: float) -> None:
        """Ask a running handler to end."""
        with self._ending:
            if run.context is None or run.context.stop_reason is not None:
                return
            run.stopped_at = now
            run.context.stop_reason = reason
        self.runner_of(run).stop(run)

    def force(self, run: Run, now: float) -> None:
        """End a handler that was asked and did not end, by whatever means its runner has."""
        run.forced_at = run.forced_at or now
        run.forced = self.runner_of(run).force(run)

    def write_off(self, run: Run) -> None:
        """Settle a run whose handler does not end, and fill its place."""
        if run.context is None:
            return
        outcome = self.executor.timed_out(run.plan, run.context)
        if self.holdings.write_off(run, outcome):
            self.runner_of(run).replace()
            facts = {**run.lease.job.log_facts(), "worker": self.worker_id, "reason": run.context.stop_reason}
            leaked = len(self.holdings.written_off)
            _log.error("handler does not end; its slot was replaced", extra={"fields": {**facts, "leaked": leaked}})

    def _watch(self, run: Run, now: float) -> None:
        """Ask a handler to end when its time is over, force it when its grace is over, and give it up when that is of no use."""
        if run.context is None:
            return
        if run.context.stop_reason is None:
            if now >= run.deadline:
                self.end(run, "timeout", now)
        elif now - run.stopped_at >= run.plan.grace.total_seconds():
            if not run.forced:
                self.force(run, now)
            if now - run.forced_at >= _FORCE and now >= run.deadline:
                # Only at its deadline: a cancel that is of no use leaves a handler its time.
                self.write_off(run)
