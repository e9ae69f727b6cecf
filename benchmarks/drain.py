"""How fast one worker process empties a queue, and what that costs it and the server."""

from __future__ import annotations

import uuid
from functools import partial
from typing import TYPE_CHECKING

import attrs

from .children import measure
from .jobs import new_jobs
from .servers import cpu_reader, empty, open_broker
from .tables import Results, Row, interleaved
from .working import work

if TYPE_CHECKING:
    from .options import Options

__all__ = ["run"]

_ENQUEUED_AT_ONCE = 500


def drain(*, url: str, namespace: str, handler: str, jobs: int, concurrency: int, busy: bool) -> dict[str, float]:
    """In the child: enqueue, drain, and check that every job was counted once and nothing is left."""
    broker = open_broker(url, namespace)
    new = new_jobs(handler, jobs)
    for start in range(0, jobs, _ENQUEUED_AT_ONCE):
        broker.enqueue(new[start : start + _ENQUEUED_AT_ONCE])
    del new
    figures = work(broker, jobs, concurrency=concurrency, busy=busy, server_cpu=cpu_reader(url))
    broker = open_broker(url, namespace)  # the worker's queue has closed the other
    stats = broker.queue("default")
    assert stats is not None
    found = {"completed": stats.completed, "outbox": broker.outbox_lag().history}
    left = {"waiting": stats.waiting, "processing": stats.processing, "scheduled": stats.scheduled, "retrying": stats.retrying, "dead": stats.dead}
    if set(found.values()) != {jobs} or any(left.values()):
        msg = f"{jobs} jobs were enqueued, but there are {found} and {left}"
        raise SystemExit(msg)
    broker.close()
    empty(url, namespace)
    return figures


def run(options: Options, url: str) -> Results:
    """The table."""
    namespace = f"benchmark-{uuid.uuid4().hex[:8]}"
    given = partial(measure, url=url, namespace=namespace, jobs=options.jobs)
    rows = [Row(str(load), partial(given, "drain.drain", **attrs.asdict(load))) for load in options.loads]
    if not url.startswith("sqlite:"):
        rows += [
            Row("bare redis-py, reads 100, acks at once", partial(given, "baseline.drain", each=False, hiredis=True)),
            Row("bare redis-py, reads 100, acks each", partial(given, "baseline.drain", each=True, hiredis=True)),
            Row("the same without hiredis", partial(given, "baseline.drain", each=True, hiredis=False)),
        ]
    return interleaved(f"drain: one worker process, {options.jobs:,} jobs enqueued before, record = all", rows, options.repeats)
