"""A worker in this process, measured from its first lease to its last settlement."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from jobqueue_core import JobQueue, Worker
from jobqueue_core.handlers import Registry
from jobqueue_core.service import Stop, Supervision
from jobqueue_core.supervision.started import StartedTable, capacity_for

from . import handlers
from .measuring import Span, Stopwatch, per_job, percentile
from .watched import WatchedBroker

if TYPE_CHECKING:
    from jobqueue_core.attempt import Settlement

__all__ = ["work"]

_BUSY = "busy"


def work(
    broker: Any,
    jobs: int,
    *,
    concurrency: int,
    busy: bool = False,
    server_cpu: Callable[[], float] | None = None,
    ready: Callable[[], None] | None = None,
    settled: Callable[[Sequence[Settlement]], None] | None = None,
) -> dict[str, float]:
    """Run a worker as a child of ``jobqueue-run`` would, with its table of started jobs, until *jobs* are settled; the figures a job.

    Args:
        broker: Where the jobs are.
        jobs: How many.
        concurrency: Most handlers at once.
        busy: Beside a thread that computes in pure Python all the time, as a handler in a thread may.
        server_cpu: Reads the server's CPU seconds.
        ready: Called when the worker is about to lease.
        settled: Told of each settled batch.
    """
    watch = Stopwatch(server_cpu)
    stop = Stop()
    spans: list[Span] = []

    def started() -> None:
        if ready is not None:
            ready()
        handlers.probe.samples.clear()
        watch.start()

    def told(batch: Sequence[Settlement], last: bool) -> None:  # noqa: FBT001 - called by the watched broker only
        if settled is not None:
            settled(batch)
        if last:
            spans.append(watch.stop())
            stop.request()

    watched = WatchedBroker(broker, jobs, on_start=started, on_settled=told)
    queue = JobQueue(watched, registry=Registry.of(handlers))
    table = StartedTable.create(capacity_for(concurrency))
    worker = Worker(queue, concurrency=concurrency, queues=["default"], supervision=Supervision(worker_id=str(uuid.uuid4()), table=table))
    if busy:
        threading.Thread(target=_compute, args=(stop,), name=_BUSY, daemon=True).start()
    worker.run(stop)
    span = spans[0]
    span.cpu -= span.threads.pop(_BUSY, 0.0)
    figures = per_job(span, jobs)
    figures["loop lag p99 ms"] = percentile(handlers.probe.samples, 0.99) * 1000
    figures["leases"], figures["settles"] = watched.leases, watched.settles
    figures |= {f"{name} µs": seconds / jobs * 1e6 for name, seconds in span.threads.items() if seconds / jobs > 2e-8}
    return figures


def _compute(stop: Stop) -> None:
    while not stop.level:
        sum(range(1000))
