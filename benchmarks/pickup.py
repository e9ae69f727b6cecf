"""How long a job waits for an idle worker: from the call of enqueue in another process to the handler's start, and until it is settled."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from jobqueue_core import JobQueue

from . import handlers
from .baseline import latencies
from .children import Child
from .servers import connect, empty, open_broker
from .tables import Results, Row, interleaved
from .working import work

if TYPE_CHECKING:
    from jobqueue_core.attempt import Settlement

    from .options import Options

__all__ = ["run"]

_JOBS = 300
_INTERVAL = 0.010
_WARM_UP = 20
"""Jobs whose latency does not count: the first make connections and load code."""


def pick_up(*, url: str, namespace: str, jobs: int, concurrency: int) -> dict[str, float]:
    """In the child: an idle worker."""
    settled: list[float] = []

    def told(batch: Sequence[Settlement]) -> None:
        now = time.monotonic()
        settled.extend(now - msgspec.json.decode(one.lease.job.payload_json, type=handlers.Ping).sent for one in batch)

    work(open_broker(url, namespace), jobs, concurrency=concurrency, ready=lambda: print("ready", flush=True), settled=told)
    return latencies(handlers.arrivals[_WARM_UP:], settled[_WARM_UP:])


def _ours(url: str, namespace: str, job_type: str) -> dict[str, float]:
    with Child("pickup.pick_up", url=url, namespace=namespace, jobs=_JOBS, concurrency=10) as child:
        child.line()
        queue = JobQueue(open_broker(url, namespace))
        _send(lambda: queue.enqueue(job_type, {"sent": time.monotonic()}, queue="default"))
        figures = child.result()
        queue.close()
    empty(url, namespace)
    return figures


def _bare(url: str, namespace: str) -> dict[str, float]:
    with Child("baseline.pickup", url=url, namespace=namespace, jobs=_JOBS) as child, connect(url) as client:
        child.line()
        _send(lambda: client.xadd(f"{namespace}:stream", {"sent": time.monotonic()}))
        return child.result()


def _send(send: Callable[[], object]) -> None:
    due = time.monotonic() + 0.5
    for _ in range(_JOBS):
        time.sleep(max(0.0, due - time.monotonic()))
        send()
        due += _INTERVAL


def run(options: Options, url: str) -> Results:
    """The table."""
    namespace = f"benchmark-{uuid.uuid4().hex[:8]}"
    rows = [Row("async", partial(_ours, url, namespace, "ping")), Row("thread", partial(_ours, url, namespace, "ping.thread"))]
    if not url.startswith("sqlite:"):
        rows.append(Row("bare redis-py, XREADGROUP BLOCK", partial(_bare, url, namespace)))
    return interleaved(f"pickup: an idle worker, {_JOBS} jobs {_INTERVAL * 1000:.0f} ms apart", rows, options.repeats)
