"""The least that any queue on Redis has to do: bare redis-py, no semantics at all. What a machine can do, to compare ratios by."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from .jobs import new_jobs
from .measuring import Stopwatch, per_job, percentile
from .servers import connect, cpu_reader, empty

__all__ = ["drain", "enqueue", "pickup"]

_BATCH = 100
_GROUP = "bare"
_READER = "reader"


def _entries(number: int) -> list[bytes]:
    """As many bytes as jobs with their payloads."""
    return [job.payload_json.ljust(180) for job in new_jobs("async", number)]


def drain(*, url: str, namespace: str, jobs: int, each: bool, hiredis: bool) -> dict[str, float]:
    """Read 100 entries, acknowledge and delete them in one pipeline, *each* by commands of its own or all by one; until nothing is left."""
    stream = f"{namespace}:stream"
    client = connect(url, hiredis=hiredis)
    client.xgroup_create(stream, _GROUP, id="0", mkstream=True)
    for start in range(0, jobs, 1000):
        _add(client, stream, _entries(min(1000, jobs - start)))
    watch = Stopwatch(cpu_reader(url))
    watch.start()
    done = 0
    while done < jobs:
        ((_, entries),) = client.xreadgroup(_GROUP, _READER, {stream: ">"}, count=_BATCH)
        ids = [entry_id for entry_id, _fields in entries]
        with client.pipeline(transaction=False) as pipeline:
            for some in [[one] for one in ids] if each else [ids]:
                pipeline.xack(stream, _GROUP, *some).xdel(stream, *some)
            pipeline.execute()
        done += len(ids)
    figures = per_job(watch.stop(), jobs)
    empty(url, namespace)
    return figures


def enqueue(*, url: str, namespace: str, jobs: int, batch: int) -> dict[str, float]:
    """XADD, one by one or *batch* in a pipeline."""
    stream = f"{namespace}:stream"
    client = connect(url)
    entries = _entries(jobs)
    watch = Stopwatch(cpu_reader(url))
    watch.start()
    if batch == 1:
        for entry in entries:
            client.xadd(stream, {"1": entry})
    else:
        for start in range(0, jobs, batch):
            _add(client, stream, entries[start : start + batch])
    figures = per_job(watch.stop(), jobs)
    empty(url, namespace)
    return figures


def _add(client: Any, stream: str, entries: Iterable[bytes]) -> None:
    with client.pipeline(transaction=False) as pipeline:
        for entry in entries:
            pipeline.xadd(stream, {"1": entry})
        pipeline.execute()


def pickup(*, url: str, namespace: str, jobs: int) -> dict[str, float]:
    """Wait in XREADGROUP BLOCK for entries that say when they were sent; acknowledge and delete each."""
    stream = f"{namespace}:stream"
    client = connect(url)
    client.xgroup_create(stream, _GROUP, id="0", mkstream=True)
    print("ready", flush=True)
    arrived: list[float] = []
    settled: list[float] = []
    while len(arrived) < jobs:
        ((_, ((entry_id, fields),)),) = client.xreadgroup(_GROUP, _READER, {stream: ">"}, count=1, block=5000)
        sent = float(fields[b"sent"])
        arrived.append(time.monotonic() - sent)
        with client.pipeline(transaction=False) as pipeline:
            pipeline.xack(stream, _GROUP, entry_id).xdel(stream, entry_id).execute()
        settled.append(time.monotonic() - sent)
    empty(url, namespace)
    return latencies(arrived, settled)


def latencies(arrived: list[float], settled: list[float]) -> dict[str, float]:
    """Latencies in milliseconds."""
    return {
        f"{what} {name} ms": percentile(samples, share) * 1000
        for what, samples in (("start", arrived), ("settled", settled))
        for name, share in (("p50", 0.5), ("p99", 0.99))
    }
