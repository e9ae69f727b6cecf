"""Middleware: functions wrapped round every run, like the layers of an onion.

One signature serves ``async def`` and plain ``def`` handlers alike::

    async def tenant(ctx: JobContext, call_next: Next) -> object:
        with use_tenant(ctx.job.metadata.get("tenant")):
            return await call_next(ctx)

A failure of the handler comes through as its exception, a timeout or cancel of an ``async def`` as ``CancelledError``; what happens then is the
executor's business, so re-raise what you do not mean to change. Round a plain ``def`` handler, which runs in a thread, nothing is there to wait
for: ``await call_next(ctx)`` is all that may be awaited.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter

from jobqueue_core.context import JobContext
from jobqueue_core.histogram import Histogram

__all__ = ["Metrics", "Middleware", "Next", "compose", "log_runs"]

Next = Callable[[JobContext], Awaitable[object]]
Middleware = Callable[[JobContext, Next], Awaitable[object]]

_log = logging.getLogger("jobqueue.worker")


def compose(middleware: Sequence[Middleware], innermost: Next) -> Next:
    """Wrap *innermost* in *middleware*, the first outermost."""
    call = innermost
    for layer in reversed(middleware):
        call = _wrap(layer, call)
    return call


def _wrap(layer: Middleware, inner: Next) -> Next:
    def call(context: JobContext) -> Awaitable[object]:
        return layer(context, inner)

    return call


async def log_runs(ctx: JobContext, call_next: Next) -> object:
    """Log each start and completion at DEBUG. A worker leaves it out when that level is disabled, so that it costs nothing then."""
    job = ctx.job
    facts = {"job_id": job.id, "type": job.type, "queue": job.queue, "attempt": ctx.attempt, "run": ctx.run, "worker": ctx.worker_id}
    _log.debug("started", extra={"fields": facts})
    begun = perf_counter()
    result = await call_next(ctx)
    _log.debug("completed", extra={"fields": {**facts, "duration_ms": round((perf_counter() - begun) * 1000, 3)}})
    return result


class Metrics:
    """Measures runs: how many started and ended well or badly, and how long they took, by job type.

    The figures are this process's own. Counting is not locked: each thread's update is a few additions, and a lost one in millions does not
    matter to a rate.
    """

    def __init__(self) -> None:
        self.started = 0
        self.raised = 0
        self.durations: dict[str, Histogram] = {}

    async def measure(self, ctx: JobContext, call_next: Next) -> object:
        """The middleware."""
        self.started += 1
        begun = perf_counter()
        try:
            return await call_next(ctx)
        except BaseException:
            self.raised += 1
            raise
        finally:
            histogram = self.durations.get(ctx.job.type)
            if histogram is None:
                histogram = self.durations.setdefault(ctx.job.type, Histogram())
            histogram.add((perf_counter() - begun) * 1000)
