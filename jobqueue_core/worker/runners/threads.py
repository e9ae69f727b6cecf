"""Runs plain ``def`` handlers: as many threads as may run at once, each of which takes its next run itself.

A run that has a process of its own is taken by a thread too, which waits for what becomes of it.
"""

from __future__ import annotations

import os
import threading
from contextvars import copy_context
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

from jobqueue_core.worker.forks import end_if_copy
from jobqueue_core.worker.interrupting import interrupt

if TYPE_CHECKING:
    from jobqueue_core.worker.executor import Executor
    from jobqueue_core.worker.holdings import Holdings
    from jobqueue_core.worker.run import Run

__all__ = ["ThreadRunner"]

_WORK: Final = "work"
_END: Final = "end"


class ThreadRunner:
    """The handler threads. They are daemons: one that is stuck in its handler cannot keep the process alive."""

    def __init__(self, holdings: Holdings, executor: Executor, *, concurrency: int) -> None:
        self._holdings = holdings
        self._executor = executor
        self._concurrency = concurrency
        self._bell: SimpleQueue[str] = SimpleQueue()
        self._threads = 0
        self._pid = os.getpid()

    def start(self) -> None:
        """Start the threads."""
        self._holdings.serve("thread", self._wake)
        for _ in range(self._concurrency):
            self.replace()

    def replace(self) -> None:
        """Start one thread more."""
        self._threads += 1
        threading.Thread(target=self._main, name=f"jobqueue-handler-{self._threads}", daemon=True).start()

    def stop(self, run: Run) -> None:
        """Nothing to do: the handler has to look at ``ctx.cancelled``, which is set already."""

    def force(self, run: Run) -> bool:
        """Raise ``Interrupted`` in the handler. It comes up at its next step; what waits in C without end cannot be ended."""
        return run.context is None or interrupt(run.context)

    def close(self) -> None:
        """Let idle threads end."""
        for _ in range(self._threads):
            self._bell.put(_END)

    def _wake(self, count: int) -> None:
        for _ in range(count):
            self._bell.put(_WORK)

    def _main(self) -> None:
        holdings, executor = self._holdings, self._executor
        context = copy_context()
        run = holdings.take("thread")
        while True:
            if run is None or run.context is None:
                if self._bell.get() is _END:
                    return
                run = holdings.take("thread")
                continue
            call = executor.run_elsewhere if run.plan.isolation == "process" else executor.run_sync
            # In a copy of the context each: variables that a handler leaves behind are not found by the next.
            ended, outcome = run, context.copy().run(call, run.plan, run.context)
            end_if_copy(self._pid, run.lease.job)
            run = holdings.swap(ended, outcome)
            if ended.written_off:
                # Its place was filled when it was given up.
                return
