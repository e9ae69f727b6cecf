"""Runs ``async def`` handlers: one event loop in a thread of its own, and as many coroutines as may run at once.

There is no task per job: a coroutine takes its next run itself, and yields to the others after a millisecond of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from jobqueue_core.handlers import Lifespan
    from jobqueue_core.worker.executor import Executor, Plan
    from jobqueue_core.worker.holdings import Holdings, Run

__all__ = ["LoopRunner"]

T = TypeVar("T")
_log = logging.getLogger("jobqueue.worker")
_SLICE: Final = 0.001
_CLOSE: Final = 2.0


class LoopRunner:
    """The event loop thread."""

    def __init__(self, holdings: Holdings, executor: Executor, *, concurrency: int) -> None:
        self._holdings = holdings
        self._executor = executor
        self._concurrency = concurrency
        self._loop = asyncio.new_event_loop()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._main, name="jobqueue-loop", daemon=True)
        self._lifespans: asyncio.Task[None] | None = None
        self._leave = asyncio.Event()
        self._closed = False
        self._ended = False
        self._asked_at: float | None = None
        self._turn_ends = 0.0
        self.current: Run | None = None
        """The run whose handler has the loop just now, for telling who blocks it."""

    def start(self) -> None:
        """Start the thread, without runners yet: see :meth:`open`."""
        self._thread.start()

    def open(self, lifespans: Iterable[tuple[Lifespan, list[Plan]]], *, serve: bool) -> None:
        """Enter the handler modules' lifespans, then start the coroutines if there is an asynchronous handler (*serve*).

        Raises:
            Exception: What a lifespan raised.
        """
        self._call(self._open(list(lifespans), serve=serve))

    async def _open(self, lifespans: list[tuple[Lifespan, list[Plan]]], *, serve: bool) -> None:
        entered: asyncio.Future[None] = self._loop.create_future()
        self._lifespans = self._loop.create_task(self._live(lifespans, entered))
        await entered
        if serve:
            self._holdings.serve("async", self._wake)
            for _ in range(self._concurrency):
                self._spawn()

    async def _live(self, lifespans: list[tuple[Lifespan, list[Plan]]], entered: asyncio.Future[None]) -> None:
        """Enter the lifespans, and leave them in the same task: context variables and cancel scopes belong to the task that set them."""
        try:
            async with contextlib.AsyncExitStack() as stack:
                for manager, plans in lifespans:
                    resources = await stack.enter_async_context(manager())
                    for plan in plans:
                        plan.resources = resources
                entered.set_result(None)
                await self._leave.wait()
        except BaseException as error:
            if entered.done():
                raise
            entered.set_exception(error)

    def stop(self, run: Run) -> None:
        """Cancel the handler at its next await."""
        self._soon(self._cancel, run)

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

    def close(self) -> None:
        """Cancel the coroutines, leave the lifespans and stop the loop.

        Raises:
            Exception: What a lifespan raised when it was left.
        """
        if not self._thread.is_alive():
            return
        try:
            self._call(self._close(), timeout=_CLOSE * 3)
        except TimeoutError:
            _log.warning("the event loop or a lifespan does not end; it is left behind")
        finally:
            self._ended = True
            self._soon(self._loop.stop)
            self._thread.join(_CLOSE)

    async def _close(self) -> None:
        self._closed = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CLOSE)
        self._leave.set()
        if self._lifespans is not None:
            await asyncio.wait_for(self._lifespans, _CLOSE)

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        while True:
            try:
                self._loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                # asyncio lets these through when a task that a handler has made raises them: no reason to end the worker.
                _log.exception("a task of a handler tried to end the process")
            if self._ended:
                break
            # Whatever has stopped it, it was not us: a handler's loop.stop() ends no worker.
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def _spawn(self) -> None:
        task = self._loop.create_task(self._runner())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _runner(self) -> None:
        holdings, executor = self._holdings, self._executor
        task = asyncio.current_task()
        run = holdings.take("async")
        while not self._closed:
            if run is None or run.context is None:
                await self._woken()
                run = holdings.take("async")
                continue
            run.task = task
            self.current = run
            outcome = await executor.run_async(run.plan, run.context, task)
            run.task = None
            ended = run
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

    def _call(self, awaitable: Awaitable[T], timeout: float | None = None) -> T:
        async def await_it() -> T:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(await_it(), self._loop).result(timeout)
