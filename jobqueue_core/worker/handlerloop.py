"""The event loop that handler code lives in: a thread of its own, the lifespans, and whatever handlers may do to it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import sys
import threading
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar

from jobqueue_core.service import Stop, StopLevel
from jobqueue_core.worker.lifespans import Lifespans

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable

    from jobqueue_core.handlers import Lifespan
    from jobqueue_core.worker.plan import Plan

__all__ = ["HandlerLoop"]

T = TypeVar("T")
_log = logging.getLogger("jobqueue.worker")
_CLOSE: Final = 2.0
"""Seconds in which what runs in the loop has to end when it is cancelled at last."""
_LEAVE: Final = 5.0
"""Seconds in which lifespans have to be left; less when all is to stop at once."""
_LEAVE_AT_ONCE: Final = 1.0
_SLOW: Final = 3.0
"""After how many seconds of entering lifespans to say so; again after ten times as long."""
_ENTER_NOTICE: Final = 1.0
"""How long lifespans may go on being entered after the process was told to stop."""


class HandlerLoop:
    """An event loop in a thread of its own. It goes on when a handler stops it, and says so when one has broken it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.broken: Exception | None = None
        """What the loop itself died of: nothing will ever run here again."""
        self.left_behind = False
        """Whether something did not end when the loop was to be closed."""
        self._thread = threading.Thread(target=self._main, name="jobqueue-loop", daemon=True)
        self._lifespans = Lifespans(())
        self._living: asyncio.Task[None] | None = None
        self._entered = False
        self._leave = asyncio.Event()
        self._ended = False
        self._asked_at: float | None = None

    # From other threads ----------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def enter(self, lifespans: Iterable[tuple[Lifespan, list[Plan]]], *, stop: Stop) -> bool:
        """Enter the handler modules' lifespans.

        Returns:
            False when *stop* rose first; what was entered is left by :meth:`close`.

        Raises:
            Exception: What a lifespan raised.
        """
        self._lifespans = Lifespans(lifespans)
        entering = self.submit(self._enter())
        news = threading.Event()
        entering.add_done_callback(lambda _: news.set())
        stop.listen(lambda _: news.set())
        wait, since = _SLOW, monotonic()
        while not news.wait(wait):
            waited = round(monotonic() - since)
            facts = {"lifespan": self._lifespans.current, "seconds": waited}
            _log.warning("a lifespan is not entered yet: no job is run before", extra={"fields": facts})
            wait = _SLOW * 10
        concurrent.futures.wait((entering,), _ENTER_NOTICE)
        if not entering.done():
            return False
        entering.result()
        return not stop.level

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Run *coroutine* in the loop, in a task of its own."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def soon(self, call: Callable[..., Any], *arguments: object) -> None:
        """Call *call* in the loop."""
        with contextlib.suppress(RuntimeError):  # the loop has been closed: nothing runs there any more
            self.loop.call_soon_threadsafe(call, *arguments)

    def is_own_thread(self) -> bool:
        """Whether the caller is in the loop's thread."""
        return threading.get_ident() == self._thread.ident

    def silent_for(self, now: float) -> float:
        """For how many seconds the loop has owed a sign of life at *now*, by the monotonic clock; asks for one if none is owed."""
        asked_at = self._asked_at
        if asked_at is not None:
            return now - asked_at
        self._asked_at = now
        self.soon(self._answer)
        return 0.0

    def place(self) -> str:
        """Where in the code the loop is just now."""
        frame = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001 - public in all but name: documented in the sys module
        return "unknown" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"

    def close(self, level: StopLevel = StopLevel.GRACEFUL, *, first: Callable[[float], Awaitable[object]] | None = None) -> None:
        """Leave the lifespans and stop the loop; what does not end is :attr:`left_behind`.

        Args:
            level: How urgently.
            first: Ends what runs in the loop, within the seconds it is given.

        Raises:
            Exception: What a lifespan raised when it was left.
        """
        if not self._thread.is_alive():
            return
        patience = _LEAVE_AT_ONCE if level is StopLevel.AT_ONCE else _LEAVE
        try:
            self.left_behind = True
            if concurrent.futures.wait((self.submit(asyncio.sleep(0)),), _CLOSE).done:
                closing = self.submit(self._close(patience, first))
                concurrent.futures.wait((closing,), 2 * _CLOSE + patience + 1)
                if closing.done() and not closing.cancelled():
                    self.left_behind = False
                    self.left_behind = not closing.result()
                    return
            facts = {"where": self.place(), **({"lifespan": self._lifespans.current} if self._lifespans.current else {})}
            _log.warning("the event loop does not answer; it is left behind", extra={"fields": facts})
        finally:
            self._ended = True
            self.soon(self.loop.stop)
            self._thread.join(0.0 if self.left_behind else _CLOSE)

    # In the loop -----------------------------------------------------------------------------------------------------------------------

    def _answer(self) -> None:
        self._asked_at = None

    async def _enter(self) -> None:
        entered: asyncio.Future[None] = self.loop.create_future()
        self._living = self.loop.create_task(self._live(entered))
        await entered

    async def _live(self, entered: asyncio.Future[None]) -> None:
        """Enter the lifespans, and leave them in the same task."""
        try:
            await self._lifespans.enter()
        except Exception as error:  # noqa: BLE001 - handed to whoever enters
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

    async def _close(self, patience: float, first: Callable[[float], Awaitable[object]] | None) -> bool:
        if first is not None:
            await first(_CLOSE)
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
        asyncio.set_event_loop(self.loop)
        while not self._ended:
            # Whatever has stopped it, it was not us: a handler's loop.stop() ends nothing.
            try:
                self.loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                # asyncio lets these through when a task that a handler has made raises them: no reason to end the process.
                _log.exception("a task of a handler tried to end the process")
            except Exception as error:  # noqa: BLE001 - the loop is broken: somebody has closed its descriptors
                error.add_note("the event loop broke; a handler may have closed its descriptors")
                self.broken = error
                return
        # What is left are tasks that handlers have started and forgotten; or everything, when the loop could not be closed in order.
        if left := asyncio.all_tasks(self.loop):
            for task in left:
                task.cancel()
            self.loop.run_until_complete(asyncio.wait(left, timeout=1))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()
