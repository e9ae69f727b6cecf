"""The handler processes of a worker: started when needed, kept for the next run, given up when they grow old, large or idle."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from time import monotonic
from typing import TYPE_CHECKING, Final

from jobqueue_core.supervision.oomkills import OomKills
from jobqueue_core.worker.isolation.faults import CannotStart, Stopped
from jobqueue_core.worker.isolation.process import HandlerProcess

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobqueue_core.attempt import Outcome
    from jobqueue_core.context import JobContext, StopReason
    from jobqueue_core.worker.executor import Plan
    from jobqueue_core.worker.isolation.messages import Setup

__all__ = ["HandlerProcesses"]

_log = logging.getLogger("jobqueue.worker")
_READY: Final = 60.0
"""Seconds in which a handler process has to have imported and entered everything."""
_IDLE: Final = 60.0
"""A process that has had nothing to do for so long is given up."""
_LEAVE: Final = 2.0
"""Seconds in which idle processes have to leave their lifespans when the worker stops."""


class HandlerProcesses:
    """All handler processes of one worker.

    Args:
        setup: What each needs to know.
        max_rss: A process that takes more bytes than this after a run is given up.
    """

    def __init__(self, setup: Setup, *, max_rss: int | None = None) -> None:
        self._setup = setup
        self._max_rss = max_rss
        self._oom_kills = OomKills()
        self._lock = threading.Lock()
        self._idle: list[HandlerProcess] = []
        self._leaving: list[HandlerProcess] = []
        self._busy: dict[JobContext, HandlerProcess] = {}
        self._closed = False

    def start(self, given_up: Callable[[], object]) -> None:
        """Start the first, so that what is wrong shows before any job is taken; none if it is given up meanwhile.

        Raises:
            CannotStart: It cannot be started, or says that it cannot run handlers.
        """
        with contextlib.suppress(Stopped):
            self._idle.append(self._new(given_up))

    def run(self, plan: Plan, context: JobContext) -> Outcome:
        """Run a handler in a process of its own.

        Raises:
            CannotStart: No process could be started.
            ProcessDied: The process died.
            MemoryExceeded: It was killed because it took more memory than *plan* allows.
            Stopped: The run was asked to stop before a process was there.
        """
        process = self._take(plan, context)
        with self._lock:
            if context.stop_reason is not None:
                self._idle.append(process)
                raise Stopped
            context.deadline_at = monotonic() + plan.timeout_of(context.job).total_seconds()
            self._busy[context] = process
        try:
            outcome = process.run(plan, context)
        except BaseException:
            with self._lock:
                self._busy.pop(context, None)
            raise
        self._give(context, process)
        return outcome

    def ask(self, context: JobContext, reason: StopReason) -> None:
        """Ask the handler of *context* to end."""
        # Under the lock: it must not reach the run after.
        with self._lock:
            process = self._busy.get(context)
            if process is not None:
                process.ask(reason)

    def kill(self, context: JobContext) -> bool:
        """Kill the process that runs the handler of *context*; False when none does."""
        with self._lock:
            process = self._busy.get(context)
            if process is not None:
                process.kill()
        return process is not None

    def close(self) -> None:
        """Let those that are idle leave their lifespans, and kill what does not end."""
        with self._lock:
            self._closed = True
            leaving, self._idle, self._leaving = [*self._idle, *self._leaving], [], []
            busy = list(self._busy.values())
        for process in leaving:
            process.leave()
        for process in busy:
            process.kill()
        deadline = monotonic() + _LEAVE
        for process in leaving:
            if not process.ended(deadline - monotonic()):
                _log.warning("a handler process did not leave its lifespans within %.0f s; killed", _LEAVE, extra={"fields": {"pid": process.pid}})
                process.kill()
                process.ended(_LEAVE)

    def _new(self, given_up: Callable[[], object]) -> HandlerProcess:
        return HandlerProcess(self._setup, patience=_READY, given_up=given_up, oom_kills=self._oom_kills)

    def _take(self, plan: Plan, context: JobContext) -> HandlerProcess:
        self._oom_kills.look()
        while True:
            with self._lock:
                if self._closed:
                    msg = "the worker is stopping"
                    raise CannotStart(msg)
                process = self._idle.pop() if self._idle else None
            if process is None:
                # Its time does not begin before there is a process for it.
                context.deadline_at = math.inf
                return self._new(lambda: context.stop_reason)
            if not process.alive:
                process.ended(0.0)
            elif plan.memory is not None and process.runs and process.memory() > plan.memory // 2:
                # What former runs have left behind is not to count against this one.
                self._give_up(process)
            else:
                return process

    def _give(self, context: JobContext, process: HandlerProcess) -> None:
        now = process.idle_since = monotonic()
        too_large = self._max_rss is not None and process.memory() > self._max_rss
        with self._lock:
            self._busy.pop(context, None)
            surplus = [process] if too_large or self._closed else []
            if not surplus:
                self._idle.append(process)
            # The longest idle come first; one at least is kept warm.
            old = [one for one in self._idle[:-1] if now - one.idle_since > _IDLE]
            self._idle = [one for one in self._idle if one not in old]
        for one in (*old, *surplus):
            self._give_up(one)

    def _give_up(self, process: HandlerProcess) -> None:
        process.leave()
        with self._lock:
            self._leaving = [one for one in self._leaving if not one.ended(0.0)] + [process]
