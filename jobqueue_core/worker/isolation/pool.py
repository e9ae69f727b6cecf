"""The handler processes of a worker: started when needed, kept for the next run, given up when they grow large or idle."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from time import monotonic
from typing import TYPE_CHECKING, Final

from jobqueue_core.supervision.oomkills import OomKills
from jobqueue_core.worker.isolation.endings import CannotStart, NotBegun, Stopped
from jobqueue_core.worker.isolation.process import HandlerProcess

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobqueue_core.attempt import Outcome
    from jobqueue_core.context import JobContext, StopReason
    from jobqueue_core.worker.isolation.messages import Setup
    from jobqueue_core.worker.plan import Plan

__all__ = ["HandlerProcesses"]

_log = logging.getLogger("jobqueue.worker")
_READY: Final = 60.0
"""Seconds in which a handler process has to have imported and entered everything."""
_IDLE: Final = 60.0
"""Seconds after which a process that has had nothing to do is given up."""
_LEAVE: Final = 2.0
"""Seconds in which a process that is given up has to leave its lifespans; then it is killed."""
_TRIES: Final = 3
"""How many processes may die before they have begun with one run."""


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
        """The longest idle first."""
        self._busy: dict[JobContext, HandlerProcess] = {}
        self._leaving: dict[HandlerProcess, float] = {}
        """Those given up, and when they are killed."""
        self._closed = False
        self._said = ""
        """Why the last one could not be started."""

    def start(self, given_up: Callable[[], object]) -> None:
        """Start the first, so that what is wrong shows before any job is taken; none if it is given up meanwhile.

        Raises:
            CannotStart: It cannot be started, or says that it cannot run handlers.
        """
        with contextlib.suppress(Stopped):
            self._idle.append(HandlerProcess(self._setup, patience=_READY, given_up=given_up, oom_kills=self._oom_kills))

    def run(self, plan: Plan, context: JobContext) -> Outcome:
        """Run a handler in a process of its own.

        Raises:
            CannotStart: No process could be started.
            ProcessDied: The process died while the handler ran.
            MemoryExceeded: It was killed because it took more memory than *plan* allows.
            Stopped: The run was asked to stop before a process was there.
        """
        death: NotBegun | None = None
        for _ in range(_TRIES):
            process = self._take(plan, context)
            try:
                self._assign(process, plan, context)
                return process.run(plan, context)
            except NotBegun as error:
                death = error
            finally:
                self._give(context, process)
        msg = f"handler processes die before they begin: {death}"
        raise CannotStart(msg)

    def ask(self, context: JobContext, reason: StopReason) -> None:
        """Ask the handler of *context* to end. Does not wait for its process."""
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

    def tidy(self, now: float) -> None:
        """Give up what has been idle for long, all but one, and see to the end of what was given up. For the worker's tick.

        Args:
            now: The monotonic clock.
        """
        self._oom_kills.look()
        with self._lock:
            surplus = [one for one in self._idle if not one.alive]
            surplus += [one for one in self._idle[:-1] if one.alive and now - one.idle_since > _IDLE]
            self._idle = [one for one in self._idle if one not in surplus]
            late = [one for one, kill_at in self._leaving.items() if now > kill_at]
        for one in surplus:
            self._give_up(one)
        for one in late:
            one.kill()
        self._forget_ended()

    def close(self) -> bool:
        """Let those that are idle leave their lifespans, and kill what does not end and what is busy.

        Returns:
            False when one did not end, or not in order.
        """
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            busy = list(self._busy.values())
        for process in idle:
            self._give_up(process)
        for process in busy:
            process.kill()
        in_order = True
        for process, kill_at in list(self._leaving.items()):
            if not process.ended(kill_at - monotonic()):
                facts = {"pid": process.pid, "seconds": _LEAVE}
                _log.warning("a handler process does not end; it is killed", extra={"fields": facts})
                process.kill()
                process.ended(_LEAVE)
            in_order = in_order and process.in_order
        return in_order

    def _new(self, given_up: Callable[[], object]) -> HandlerProcess:
        try:
            return HandlerProcess(self._setup, patience=_READY, given_up=given_up, oom_kills=self._oom_kills)
        except CannotStart as error:
            if str(error) != self._said:
                # Once; each job that is put off for it repeats the line.
                self._said = str(error)
                _log.error("a handler process cannot be started", exc_info=error)
            raise

    def _take(self, plan: Plan, context: JobContext) -> HandlerProcess:
        while True:
            with self._lock:
                process = self._idle.pop() if self._idle else None
            if process is None:
                # Its time does not begin before there is a process for it.
                context.deadline_at = math.inf
                return self._new(lambda: context.stop_reason or self._closed)
            # What former runs have left behind is not to count against this one.
            too_full = plan.memory is not None and process.runs and process.memory() > plan.memory // 2
            if process.alive and not too_full:
                return process
            self._give_up(process)

    def _assign(self, process: HandlerProcess, plan: Plan, context: JobContext) -> None:
        with self._lock:
            if context.stop_reason is not None or self._closed:
                raise Stopped
            context.deadline_at = monotonic() + plan.timeout_of(context.job).total_seconds()
            self._busy[context] = process

    def _give(self, context: JobContext, process: HandlerProcess) -> None:
        """Take a process back from a run."""
        process.idle_since = monotonic()
        fit = process.alive and (self._max_rss is None or process.memory() <= self._max_rss)
        with self._lock:
            # Whoever kills does so under the lock too: after this the process has nothing to do with the run.
            self._busy.pop(context, None)
            fit = fit and not process.killed and not self._closed
            if fit:
                self._idle.append(process)
        if not fit:
            self._give_up(process)

    def _give_up(self, process: HandlerProcess) -> None:
        process.leave()
        with self._lock:
            self._leaving[process] = monotonic() + _LEAVE
        self._forget_ended()

    def _forget_ended(self) -> None:
        with self._lock:
            for process in [one for one in self._leaving if one.ended(0.0)]:
                del self._leaving[process]
