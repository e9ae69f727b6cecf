"""Runs ``async def`` handlers: one event loop in a thread of its own, and as many coroutines as may run at once.

There is no task per job: a coroutine takes its next run itself, and yields to the others after a millisecond of its own.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import sys
import threading
from collections import deque
from contextvars import copy_context
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar

from jobqueue_core.context import current_run
from jobqueue_core.service import Stop, StopLevel
from jobqueue_core.worker.forks import end_if_copy
from jobqueue_core.worker.lifespans import Lifespans

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from jobqueue_core.handlers import Lifespan
    from jobqueue_core.worker.executor import Executor
    from jobqueue_core.worker.holdings import Holdings, Run
    from jobqueue_core.worker.plan import Plan

__all__ = ["LoopRunner"]

T = TypeVar("T")
_log = logging.getLogger("jobqueue.worker")
_SLICE: Final = 0.001
_CLOSE: Final = 2.0
"""Seconds in which coroutines have to end when they are cancelled at last."""
_LEAVE: Final = 5.0
"""Seconds in which lifespans have to be left; less when all is to stop at once."""
_LEAVE_AT_ONCE: Final = 1.0
_SLOW: Final = 3.0
"""After how many seconds of entering lifespans to say so; again after ten times as long."""
_ENTER_NOTICE: Final = 1.0
"""How long lifespans may go on being entered after the worker was told to stop."""
_RESPAWN: Final = 0.1


class LoopRunner:
    """The event loop thread."""

    def __init__(self, holdings: Holdings, executor: Executor, *, concurrency: int) -> None:
        self._holdings = holdings
        self._executor = executor
        self._concurrency = concurrency
        self._pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._context = copy_context()
        """What every runner begins with."""
        self._thread = threading.Thread(target=self._main, name="jobqueue-loop", daemon=True)
        self._lifespans = Lifespans(())
        self._living: asyncio.Task[None] | None = None
        self._entered = False
        self._leave = asyncio.Event()
        self._closed = False
        self._ended = False
        self._asked_at: float | None = None
        self._turn_ends = 0.0
        self.broken: Exception | None = None
        """What the loop itself died of: no coroutine will ever run here again."""
        self.left_behind = False
        """Whether something did not end when the loop was to be closed."""

    def start(self) -> None:
        """Start the thread, without runners yet: see :meth:`open`."""
        self._thread.start()

    def open(self, lifespans: Iterable[tuple[Lifespan, list[Plan]]], *, serve: bool, stop: Stop | None = None) -> bool:
        """Enter the handler modules' lifespans, then start the coroutines if there is an asynchronous handler (*serve*).

        Returns:
            False when *stop* rose first: nothing has been started, and what was entered is left by :meth:`close`.

        Raises:
            Exception: What a lifespan raised.
        """
        self._lifespans = Lifespans(lifespans)
        opening = self._submit(self._open(serve=serve))
        news = threading.Event()
        opening.add_done_callback(lambda _: news.set())
        stop = stop or Stop()
        stop.listen(lambda _: news.set())
        wait, since = _SLOW, monotonic()
        while not news.wait(wait):
            waited = round(monotonic() - since)
            facts = {"lifespan": self._lifespans.current, "seconds": waited}
            _log.warning("a lifespan is not entered yet: no job is run before", extra={"fields": facts})
            wait = _SLOW * 10
        concurrent.futures.wait((opening,), _ENTER_NOTICE)
        if not opening.done():
            return False
        opening.result()
        return not stop.level

    async def _open(self, *, serve: bool) -> None:
        entered: asyncio.Future[None] = self._loop.create_future()
        self._living = self._loop.create_task(self._live(entered))
        await entered
        if serve:
            self._holdings.serve("async", self._wake)
            for _ in range(self._concurrency):
                self._spawn()

    async def _live(self, entered: asyncio.Future[None]) -> None:
        """Enter the lifespans, and leave them in the same task."""
        try:
            await self._lifespans.enter()
        except Exception as error:  # noqa: BLE001 - handed to whoever opens this
            if not entered.done():  # it is, when nobody waits any more
                entered.set_exception(error)
            return
        self._entered = True
        if not entered.done():
            entered.set_result(None)
        while not self._leave.is_set():
            # A handler may cancel all tasks there are: what it is served with stays all the same.
            with contextlib.suppress(asyncio.CancelledError):
                await self._leave.wait()
        await self._lifespans.leave()

    def stop(self, run: Run) -> None:
        """Cancel the handler at its next await."""
        self._soon(self._cancel, run)

    def force(self, run: Run) -> bool:
        """Cancel the handler once more: it may have swallowed the first."""
        self._soon(self._cancel, run)
        return True

    def replace(self) -> None:
        """Start one coroutine more."""
        self._soon(self._spawn)

    def silent_for(self, now: float) -> float:
        """For how many seconds the loop has owed a sign of life at *now*, by the monotonic clock; asks for one if none is owed."""
        asked_at = self._asked_at
        if asked_at is not None:
            return now - asked_at
        self._asked_at = now
        self._soon(self._answer)
        return 0.0

    def _answer(self) -> None:
        self._asked_at = None

    def culprit(self) -> tuple[Run | None, str]:
        """Which run has the loop just now, if it is one's own task that has it, and where in the code it is."""
        task = asyncio.current_task(self._loop)
        run = next((run for run in list(self._holdings.running.values()) if task is not None and run.task is task), None)
        frame = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001 - public in all but name: documented in the sys module
        return run, "unknown" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"

    def close(self, level: StopLevel = StopLevel.GRACEFUL) -> None:
        """Cancel the coroutines, leave the lifespans and stop the loop; what does not end is :attr:`left_behind`.

        Raises:
            Exception: What a lifespan raised when it was left.
        """
        if not self._thread.is_alive():
            return
        patience = _LEAVE_AT_ONCE if level is StopLevel.AT_ONCE else _LEAVE
        try:
            self.left_behind = True
            if concurrent.futures.wait((self._submit(asyncio.sleep(0)),), _CLOSE).done:
                closing = self._submit(self._close(patience))
                concurrent.futures.wait((closing,), 2 * _CLOSE + patience + 1)
                if closing.done() and not closing.cancelled():
                    self.left_behind = False
                    self.left_behind = not closing.result()
                    return
            facts = {"where": self.culprit()[1], **({"lifespan": self._lifespans.current} if self._lifespans.current else {})}
            _log.warning("the event loop does not answer; it is left behind", extra={"fields": facts})
        finally:
            self._ended = True
            self._soon(self._loop.stop)
            self._thread.join(0.0 if self.left_behind else _CLOSE)

    async def _close(self, patience: float) -> bool:
        self._closed = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CLOSE)
        self._leave.set()
        living = self._living
        if living is None:
            return True
        if not self._entered:
            living.cancel()
        if not (await asyncio.wait((living,), timeout=patience))[0]:
            _log.warning("a lifespan does not end; it is cancelled", extra={"fields": {"lifespan": self._lifespans.current, "seconds": patience}})
            living.cancel()
            await asyncio.wait((living,), timeout=1)
            return False
        living.result()
        return True

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        while not self._ended:
            # Whatever has stopped it, it was not us: a handler's loop.stop() ends no worker.
            try:
                self._loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                # asyncio lets these through when a task that a handler has made raises them: no reason to end the worker.
                _log.exception("a task of a handler tried to end the process")
            except Exception as error:  # noqa: BLE001 - the loop is broken: somebody has closed its descriptors
                error.add_note("the event loop broke; a handler may have closed its descriptors")
                self.broken = error
                return
        # What is left are tasks that handlers have started and forgotten; or everything, when the loop could not be closed in order.
        if left := asyncio.all_tasks(self._loop):
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.wait(left, timeout=1))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def _spawn(self) -> None:
        task = self._loop.create_task(self._runner(), context=self._context.copy())
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
            self._loop.call_later(_RESPAWN, self._spawn)

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
        waiting = self._loop.create_future()
        self._idle.append(waiting)
        await waiting

    async def _let_others(self) -> None:
        """Let the loop do what else there is to do; the runners share one time slice until the next such pause."""
        await asyncio.sleep(0)
        now = monotonic()
        if now >= self._turn_ends:
            self._turn_ends = now + _SLICE

    def _wake(self, count: int) -> None:
        if threading.get_ident() == self._thread.ident:
            self._resume(count)
        else:
            self._soon(self._resume, count)

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

    def _soon(self, call: Callable[..., Any], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed: nothing runs there any more
            self._loop.call_soon_threadsafe(call, *arguments)

    def _submit(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)


async def _swallow_cancel() -> None:
    """Take the cancel that a handler has sent its own task and not waited for: it would hit the next handler (uncancel() alone keeps it)."""
    task = asyncio.current_task()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(0)
    while task is not None and task.cancelling():
        task.uncancel()
