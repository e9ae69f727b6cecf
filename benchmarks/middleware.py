"""What the layers round a run cost, and what a log line costs, written or not."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from time import process_time
from typing import TYPE_CHECKING, Any

from jobqueue_core import Job, JobContext, JobState, Priority
from jobqueue_core.context import current_run
from jobqueue_core.handlers import inspect_handler
from jobqueue_core.job import new_job_id
from jobqueue_core.logs import configure
from jobqueue_core.middleware import Metrics, Middleware, Next, log_starts
from jobqueue_core.settings.sections import LogSection
from jobqueue_core.worker.executor import Executor
from jobqueue_core.worker.plan import JobDefaults, Plan

from . import handlers
from .children import measure
from .tables import Results, Row, interleaved

if TYPE_CHECKING:
    from .options import Options

__all__ = ["run"]

_BATCH = 1_000
_LINES = 200
"""As a batch, where each is written."""


def run(options: Options) -> Results:
    """The table."""
    batches = max(5, options.jobs // _BATCH)
    rows = [Row(label, partial(measure, "middleware.around", layers=label, batches=batches)) for label in _LAYERS]
    rows += [Row(label, partial(measure, "middleware.call", what=label, batches=batches)) for label in _CALLS]
    return interleaved("middleware: µs of CPU a run, with how much of it is not the bare call's, and µs a call", rows, options.repeats)


# Round a run ---------------------------------------------------------------------------------------------------------------------------


async def _nothing(ctx: JobContext, call_next: Next) -> object:
    return await call_next(ctx)


_LAYERS: dict[str, Callable[[], list[Middleware]]] = {
    "bare": list,
    "a layer that does nothing": lambda: [_nothing],
    "bundled, log level info": lambda: [Metrics().measure],
    "bundled, log level debug": lambda: [log_starts, Metrics().measure],
}


def around(*, layers: str, batches: int) -> dict[str, float]:
    """In the child: no-op handlers inside of these layers, and bare ones in turns with them."""
    _log_to_nowhere("debug" if layers.endswith("debug") else "info", "json")
    made = _LAYERS[layers]()
    figures = {}
    for form, function in (("async", handlers.do_nothing), ("sync", handlers.do_nothing_in_a_thread)):
        spec = inspect_handler(function)
        time_of = _time_async if form == "async" else _time_sync
        times = [_Fastest(partial(time_of, Plan(spec, middleware=each, defaults=JobDefaults()))) for each in ([], made)]
        for _ in range(batches):
            for one in times:
                one.again()
        bare, whole = (one.seconds / _BATCH * 1e6 for one in times)
        figures[form] = whole
        if made:
            figures[f"{form}, over bare"] = whole - bare
    return figures


def _time_sync(plan: Plan) -> float:
    context, run = plan.context(_job(), "worker"), Executor().run_sync
    begun = process_time()
    for _ in range(_BATCH):
        run(plan, context)
    return process_time() - begun


def _time_async(plan: Plan) -> float:
    async def runner() -> float:
        context, run, task = plan.context(_job(), "worker"), Executor().run_async, asyncio.current_task()
        begun = process_time()
        for _ in range(_BATCH):
            await run(plan, context, task)
        return process_time() - begun

    return asyncio.run(runner())


class _Fastest:
    """The shortest of several measurements: whatever else the machine does only adds to one."""

    def __init__(self, measure_once: Callable[[], float]) -> None:
        self.seconds = float("inf")
        self._measure_once = measure_once

    def again(self) -> None:
        self.seconds = min(self.seconds, self._measure_once())


# A call --------------------------------------------------------------------------------------------------------------------------------


def _mark(context: JobContext, _log: logging.Logger) -> None:
    current_run.set(context)
    context.ended = True


def _disabled(_context: JobContext, log: logging.Logger) -> None:
    log.debug("nothing")


def _asked(_context: JobContext, log: logging.Logger) -> None:
    log.isEnabledFor(logging.DEBUG)


def _line(_context: JobContext, log: logging.Logger) -> None:
    log.info("sent to %s", "somebody")


_CALLS: dict[str, tuple[Callable[[JobContext, logging.Logger], None], str]] = {
    "log context of a run (in each row above)": (_mark, "json"),
    "log.debug(...), disabled": (_disabled, "json"),
    "log.isEnabledFor(DEBUG), disabled": (_asked, "json"),
    "a line, json, outside of a run": (_line, "json"),
    "a line, json, in a run": (_line, "json"),
    "a line, console, outside of a run": (_line, "console"),
    "a line, console, in a run": (_line, "console"),
}


def call(*, what: str, batches: int) -> dict[str, float]:
    """In the child: one of these calls, without the loop and the function round it."""
    function, form = _CALLS[what]
    _log_to_nowhere("info", form)
    log, context = logging.getLogger("acme.client"), JobContext(_job())
    if what.endswith("in a run"):
        current_run.set(context)
    count = _LINES if function is _line else _BATCH
    empty, whole = (_Fastest(partial(_time_calls, each, count, context, log)) for each in (lambda _context, _log: None, function))
    for _ in range(batches):
        empty.again()
        whole.again()
    return {"a call": (whole.seconds - empty.seconds) / count * 1e6}


def _time_calls(function: Callable[..., None], count: int, context: JobContext, log: logging.Logger) -> float:
    begun = process_time()
    for _ in range(count):
        function(context, log)
    return process_time() - begun


def _log_to_nowhere(level: Any, form: Any) -> None:
    # Written as to a pipe or a file: through a descriptor, line by line.
    configure(LogSection(level=level, format=form), open(os.devnull, "w", encoding="utf-8", buffering=1))  # noqa: SIM115, PTH123 - until the process ends


def _job() -> Job:
    return Job(
        id=new_job_id("default"),
        type="async",
        payload_json=b'{"to":"somebody@example.com","subject":"Welcome","number":12345,"text":"a few words, as in life"}',
        queue="default",
        priority=Priority.MEDIUM,
        state=JobState.PROCESSING,
        created_at=datetime.now(UTC),
        run=1,
    )
