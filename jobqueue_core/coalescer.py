"""Lets asynchronous callers share round trips: what arrives while a batch is under way goes with the next one."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobqueue_core.broker import Enqueued
    from jobqueue_core.job import NewJob

__all__ = ["Coalescer"]

T = TypeVar("T")
_MAX_BATCH: Final = 500
_MAX_BATCH_BYTES: Final = 4 << 20
_THREADS: Final = 4


def _fitting(waiting: list[tuple[NewJob, asyncio.Future[Enqueued]]]) -> int:
    """How many of *waiting* go into one batch; one at least."""
    size = 0
    for count, (job, _) in enumerate(waiting[:_MAX_BATCH]):
        size += len(job.payload_json)
        if size > _MAX_BATCH_BYTES and count:
            return count
    return min(len(waiting), _MAX_BATCH)


class Coalescer:
    """Collects jobs from coroutines and sends them in batches from a thread; one batch at a time for each event loop."""

    def __init__(self, send: Callable[[list[NewJob]], list[Enqueued]]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._waiting: dict[asyncio.AbstractEventLoop, list[tuple[NewJob, asyncio.Future[Enqueued]]]] = {}
        self._sending: dict[asyncio.AbstractEventLoop, asyncio.Task[None]] = {}

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run *work* in one of a few threads of our own, so that a full default executor cannot hold it up."""
        return await asyncio.get_running_loop().run_in_executor(self._executor(), work)

    async def submit(self, job: NewJob) -> Enqueued:
        """Send *job* with the next batch. Raises what the batch raises."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Enqueued] = loop.create_future()
        self._waiting.setdefault(loop, []).append((job, answer))
        if loop not in self._sending:
            self._sending[loop] = loop.create_task(self._run(loop))
        return await answer

    async def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while waiting := self._waiting.get(loop):
                count = _fitting(waiting)
                batch, self._waiting[loop] = waiting[:count], waiting[count:]
                await self._deliver(batch)
        finally:
            del self._sending[loop]
            self._waiting.pop(loop, None)

    async def _deliver(self, batch: list[tuple[NewJob, asyncio.Future[Enqueued]]]) -> None:
        try:
            answers = await self.in_thread(lambda: self._send([job for job, _ in batch]))
            pairs = list(zip(batch, answers, strict=True))
        except BaseException as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error) if isinstance(error, Exception) else future.cancel()
            if not isinstance(error, Exception):
                raise
            return
        for (_, future), answer in pairs:
            if not future.done():
                future.set_result(answer)

    def _executor(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="jobqueue-client")
            return self._pool

    def close(self) -> None:
        """Let the threads go once what is under way has been answered."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True)
