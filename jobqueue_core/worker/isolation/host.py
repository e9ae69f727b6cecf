"""The inside of a handler process: runs one handler after the other, and tells the worker how they fare.

Plain ``def`` handlers run in the main thread. Lifespans and ``async def`` handlers have an event loop in a thread of its own, as in a worker.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import resource
import select
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

from jobqueue_core.job import decode_job
from jobqueue_core.service import Stop
from jobqueue_core.worker.executor import Executor
from jobqueue_core.worker.forks import end_if_copy
from jobqueue_core.worker.handlerloop import HandlerLoop
from jobqueue_core.worker.isolation.messages import Ask, Began, Channel, Ended, Said, Start
from jobqueue_core.worker.plans import lifespans

if TYPE_CHECKING:
    from jobqueue_core.attempt import Outcome
    from jobqueue_core.context import JobContext, StopReason
    from jobqueue_core.worker.plan import Plan

__all__ = ["HandlerHost"]

_TELL: Final = 0.1
"""How often the worker is told of progress and log lines, in seconds."""
_LOOK_AT_LOOP: Final = 1.0
"""How often to look whether the event loop lives that a handler runs in, in seconds."""
_SLACK: Final = 256 << 20
"""Bytes that a handler may set aside, as for the stacks of threads, without using them."""
_LOOK_FOR_WORKER: Final = 5.0
"""How often an idle process looks whether its worker lives, in seconds."""


class HandlerHost:
    """Runs handlers for a worker.

    Args:
        plans: The handlers.
        channel: The worker.
        worker_id: Its id, for contexts.
    """

    def __init__(self, plans: Sequence[Plan], channel: Channel, *, worker_id: str) -> None:
        self._plans = {name: plan for plan in plans for name in (plan.spec.type, *plan.spec.options.aliases)}
        self._channel = channel
        self._worker_id = worker_id
        self._executor = Executor()
        self._starts: SimpleQueue[Start | None] = SimpleQueue()
        self._pid, self._worker_pid = os.getpid(), os.getppid()
        self._number = 0
        """The run that is on, or was last."""
        self._busy = False
        """From when a run is announced until its outcome is about to be sent."""
        self._asked: StopReason | None = None
        """What was asked of the run that is on."""
        self._context: JobContext | None = None
        self._task: asyncio.Task[Outcome] | None = None
        self._loop: HandlerLoop | None = None

    def enter(self) -> None:
        """Start the event loop if anything needs one, and enter the lifespans.

        Raises:
            Exception: What a lifespan raised.
        """
        plans = set(self._plans.values())
        if any(plan.runs_async or plan.spec.lifespan is not None for plan in plans):
            self._loop = HandlerLoop()
            self._loop.start()
            self._loop.enter(lifespans(plans), stop=Stop())

    def serve(self) -> None:
        """Run what the worker sends until it closes the connection, then leave the lifespans.

        Raises:
            Exception: What a lifespan raised when it was left.
        """
        threading.Thread(target=self._listen, name="jobqueue-listen", daemon=True).start()
        while (start := self._starts.get()) is not None:
            with contextlib.suppress(OSError):  # the worker has died: the listener ends this process
                self._run(start)
        if self._loop is not None:
            self._loop.close()

    # One run ---------------------------------------------------------------------------------------------------------------------------

    def _run(self, start: Start) -> None:
        job = decode_job(start.job)
        plan = self._plans[job.type]
        context = self._context = plan.context(job, self._worker_id)
        context.stop_reason = self._asked
        self._channel.send(Began(start.number))
        with _memory_limited(start.memory):
            outcome = self._outcome(plan, context)
        end_if_copy(self._pid, job)
        self._context = self._task = None
        self._tell(context)
        self._busy = False
        self._channel.send(Ended.of(start.number, outcome))

    def _outcome(self, plan: Plan, context: JobContext) -> Outcome:
        if self._loop is None or not plan.runs_async:
            return self._executor.run_sync(plan, context)

        async def run() -> Outcome:
            self._task = asyncio.current_task()
            if context.stop_reason is not None and self._task is not None:
                self._task.cancel()
            return await self._executor.run_async(plan, context, self._task)

        running = self._loop.submit(run())
        while not concurrent.futures.wait((running,), _LOOK_AT_LOOP).done:
            if self._loop.broken is not None:
                raise self._loop.broken
        return running.result()

    def _tell(self, context: JobContext) -> None:
        news = context.take_report()
        if news is not None:
            self._channel.send(Said(self._number, *news))

    # The worker's words ----------------------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        poller = select.poll()
        poller.register(self._channel, select.POLLIN)
        while True:
            if not poller.poll((_TELL if self._busy else _LOOK_FOR_WORKER) * 1000):
                if os.getppid() != self._worker_pid:
                    # Something that the worker has forked keeps the connection open.
                    self._part()
                    return
                if (context := self._context) is not None:
                    with contextlib.suppress(OSError):  # the worker has died, which is what will be heard next
                        self._tell(context)
                continue
            match self._channel.receive():
                case Start() as start:
                    self._number, self._asked, self._busy = start.number, None, True
                    self._starts.put(start)
                case Ask(number=number, reason=reason):
                    if number == self._number:
                        self._ask(reason)
                case _:
                    self._part()
                    return

    def _part(self) -> None:
        """The worker has ended, or has no more use for this process."""
        if self._busy:
            # Nobody is left to hear how it ends, and it will be run again elsewhere.
            os.killpg(0, signal.SIGKILL)
        self._starts.put(None)

    def _ask(self, reason: StopReason) -> None:
        if not self._busy:
            return
        self._asked = reason
        if (context := self._context) is not None:
            context.stop_reason = reason
            if self._loop is not None:
                self._loop.soon(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


@contextlib.contextmanager
def _memory_limited(most: int | None) -> Iterator[None]:
    """Let what is allocated beyond *most* bytes fail with MemoryError.

    The worker measures what the process really takes; this catches what would exhaust the machine before it can look. So it may be generous: the
    kernel counts what is set aside as well as what is used.
    """
    if most is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = _data_size() + most + _SLACK
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_size() -> int:
    """How many bytes this process has set aside, as RLIMIT_DATA counts them; 0 where that cannot be known."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmData:")), 0)
