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

import functools
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from typing import Any

from jobqueue_core.context import JobContext
from jobqueue_core.histogram import Histogram

__all__ = ["Metrics", "Middleware", "Next", "compose", "log_starts", "misfit", "name_of"]

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


def name_of(middleware: object) -> str:
    """What a middleware is called: its function's name, or its class's."""
    function = _without_partials(middleware)
    return str(getattr(function, "__name__", type(function).__name__))


def misfit(middleware: object) -> str | None:
    """What keeps *middleware* from being one; None when nothing does.

    It is looked at, not called: that it is wrong would else be found out by the first job, and fail every job.
    """
    if isinstance(middleware, type) or not callable(middleware):
        return f"{middleware!r:.100} is no middleware: that is an async function of (ctx, call_next), or an object whose __call__ is one"
    name = name_of(middleware)
    function = inspect.unwrap(_without_partials(middleware))
    if inspect.isasyncgenfunction(function):
        return f"middleware {name!r} yields: it is to 'return await call_next(ctx)'"
    if not (inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)):
        return f"middleware {name!r} is not asynchronous: write 'async def {name}(ctx, call_next)' and 'return await call_next(ctx)'"
    try:
        signature = inspect.signature(middleware)
    except (TypeError, ValueError):  # something compiled that does not tell
        return None
    try:
        signature.bind(None, None)
    except TypeError:
        return f"middleware {name!r} takes {signature}, and is called with (ctx, call_next)"
    return None


def _without_partials(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def log_starts(ctx: JobContext, call_next: Next) -> Awaitable[object]:
    """Log each start at DEBUG; how a run has ended is logged when that is settled. A worker leaves it out when the level is disabled."""
    job = ctx.job
    facts = {**job.log_facts(), "worker": ctx.worker_id}
    _log.debug("started", extra={"fields": facts})
    return call_next(ctx)


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

    def total(self) -> Histogram:
        """The durations so far of all types together; may be asked while runs are measured."""
        total = Histogram()
        # Copied in steps that no other thread can come between: a type or a bucket may be added at any time.
        total.merge([Histogram(one.buckets, total_ms=one.total_ms) for one in list(self.durations.values())])
        return total
