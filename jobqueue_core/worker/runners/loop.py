"""Runs ``async def`` handlers: as many coroutines in the event loop as may run at once.

There is no task per job: a coroutine takes its next run itself, and yields to the others after a millisecond of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import deque
from contextvars import copy_context
from time import monotonic
from typing import TYPE_CHECKING, Final

from jobqueue_core.context import current_run
from jobqueue_core.worker.forks import end_if_copy

if TYPE_CHECKING:
    from jobqueue_core.worker.executor import Executor
    from jobqueue_core.worker.handlerloop import HandlerLoop
    from jobqueue_core.worker.holdings import Holdings
    from jobqueue_core.worker.run import Run

__all__ = ["LoopRunner"]

_log = logging.getLogger("jobqueue.worker")
_SLICE: Final = 0.001
_RESPAWN: Final = 0.1


class LoopRunner:
    """The coroutines, in *loop*."""

    def __init__(self, loop: HandlerLoop, holdings: Holdings, executor: Executor, *, concurrency: int) -> None:
        self._loop = loop
        self._holdings = holdings
        self._executor = executor
        self._concurrency = concurrency
        self._pid = os.getpid()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._context = copy_context()
        """What every coroutine begins with."""
        self._closed = False
        self._turn_ends = 0.0

    def start(self) -> None:
        """Start the coroutines."""
        self._holdings.serve("async", self._wake)
        for _ in range(self._concurrency):
            self.replace()

    def stop(self, run: Run) -> None:
        """Cancel the handler at its next await."""
        self._loop.soon(self._cancel, run)

    def force(self, run: Run) -> bool:
        """Cancel the handler once more: it may have swallowed the first."""
        self._loop.soon(self._cancel, run)
        return True

    def replace(self) -> None:
        """Start one coroutine more."""
        self._loop.soon(self._spawn)

    async def close(self, patience: float) -> None:
        """Cancel the coroutines, and wait *patience* seconds for their end. In the loop."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience)

    def _spawn(self) -> None:
        task = self._loop.loop.create_task(self._runner(), context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._runner_ended)

    def _runner_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._closed:
            return
        if task.cancelled():
            # Not by us: by a handler that cancels all tasks there are. It had no run in hand, or that has become an outcome.
            self._spawn()
        elif (error := task.exception()) is not None:
            _log.error("a runner broke", exc_info=error)
            self._loop.loop.call_later(_RESPAWN, self._spawn)

    async def _runner(self) -> None:
        holdings, executor = self._holdings, self._executor
        task = asyncio.current_task()
        current_run.set(None)
        clean = len(copy_context())
        run = holdings.take("async")
        while not self._closed:
            if run is None or run.context is None:
                await self._woken()
                run = holdings.take("async")
                continue
            run.task = task
            outcome = await executor.run_async(run.plan, run.context, task)
            run.task = None
            end_if_copy(self._pid, run.lease.job)
            if getattr(task, "_must_cancel", False):
                await _swallow_cancel()
            ended = run
            if len(copy_context()) > clean:
                # A handler has left context variables behind: another's are not to be found by the next.
                if holdings.finish(ended, outcome):
                    self._spawn()
                return
            if monotonic() < self._turn_ends:
                run = holdings.swap(ended, outcome)
            else:
                holdings.finish(ended, outcome)
                await self._let_others()
                run = None if ended.written_off else holdings.take("async")
            if ended.written_off:
                # Its place was filled when it was given up.
                return

    async def _woken(self) -> None:
        waiting = self._loop.loop.create_future()
        self._idle.append(waiting)
        await waiting

    async def _let_others(self) -> None:
        """Let the loop do what else there is to do; the runners share one time slice until the next such pause."""
        await asyncio.sleep(0)
        now = monotonic()
        if now >= self._turn_ends:
            self._turn_ends = now + _SLICE

    def _wake(self, count: int) -> None:
        if self._loop.is_own_thread():
            self._resume(count)
        else:
            self._loop.soon(self._resume, count)

    def _resume(self, count: int) -> None:
        for _ in range(count):
            while self._idle:
                waiting = self._idle.popleft()
                if not waiting.done():
                    waiting.set_result(None)
                    break

    @staticmethod
    def _cancel(run: Run) -> None:
        if run.task is not None and not run.done:
            run.task.cancel()


async def _swallow_cancel() -> None:
    """Take the cancel that a handler has sent its own task and not waited for: it would hit the next handler (uncancel() alone keeps it)."""
    task = asyncio.current_task()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(0)
    while task is not None and task.cancelling():
        task.uncancel()
