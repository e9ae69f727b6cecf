"""How fast one process enqueues."""

from __future__ import annotations

import asyncio
import uuid
from functools import partial
from typing import TYPE_CHECKING

from jobqueue_core import JobQueue

from . import handlers
from .children import measure
from .measuring import Stopwatch, per_job
from .servers import cpu_reader, empty, open_broker
from .tables import Results, Row, interleaved

if TYPE_CHECKING:
    from .options import Options

__all__ = ["run"]

_TASKS = 50


def enqueue(*, url: str, namespace: str, way: str, jobs: int) -> dict[str, float]:
    """In the child: enqueue *jobs* jobs in one of three ways."""
    broker = open_broker(url, namespace)
    queue = JobQueue(broker)
    queue.enqueue("async", handlers.PAYLOAD, queue="default")  # connections are made, scripts are loaded
    watch = Stopwatch(cpu_reader(url))
    watch.start()
    if way == "one":
        for _ in range(jobs):
            queue.enqueue("async", handlers.PAYLOAD, queue="default")
    elif way == "many":
        for _ in range(0, jobs, 1000):
            queue.enqueue_many([{"type": "async", "payload": handlers.PAYLOAD, "queue": "default"}] * 1000)
    else:
        asyncio.run(_in_tasks(queue, jobs))
    figures = per_job(watch.stop(), jobs)
    stats = broker.queue("default")
    if stats is None or stats.waiting != jobs + 1:
        msg = f"{jobs} jobs were enqueued, but the queue has {stats}"
        raise SystemExit(msg)
    queue.close()
    empty(url, namespace)
    return figures


async def _in_tasks(queue: JobQueue, jobs: int) -> None:
    async def producer() -> None:
        for _ in range(jobs // _TASKS):
            await queue.aenqueue("async", handlers.PAYLOAD, queue="default")

    await asyncio.gather(*(producer() for _ in range(_TASKS)))


def run(options: Options, url: str) -> Results:
    """The table."""
    namespace = f"benchmark-{uuid.uuid4().hex[:8]}"
    few, many = max(1000, options.jobs // 20), options.jobs // 1000 * 1000
    given = partial(measure, url=url, namespace=namespace)
    rows = [
        Row("enqueue, one by one", partial(given, "enqueue.enqueue", way="one", jobs=few)),
        Row("enqueue_many, 1000 at once", partial(given, "enqueue.enqueue", way="many", jobs=many)),
        Row(f"{_TASKS} tasks of aenqueue", partial(given, "enqueue.enqueue", way="tasks", jobs=many)),
    ]
    if not url.startswith("sqlite:"):
        rows += [
            Row("bare redis-py, XADD one by one", partial(given, "baseline.enqueue", batch=1, jobs=few)),
            Row("bare redis-py, XADD 1000 at once", partial(given, "baseline.enqueue", batch=1000, jobs=many)),
        ]
    return interleaved("enqueue: one process", rows, options.repeats)
