"""A worker in this process: its shop, a wire to the broker that can be cut, and handlers that stay until they are let go."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from jobqueue_core import Job, JobContext, JobQueue, Registry, RetryPolicy, Worker, handler
from jobqueue_core.attempt import ExecutionState
from jobqueue_core.errors import BrokerUnavailable
from jobqueue_core.observers import Observer, Observers
from jobqueue_core.recorder import Recorder
from jobqueue_core.service import Exit, Stop, StopLevel
from jobqueue_core.testing import ManualClock
from jobqueue_core.worker import WorkerOptions
from jobqueue_core.worker.plan import JobDefaults
from jobqueue_sqlite.broker import SqliteBroker
from jobqueue_sqlite.storage import SqliteStorage

__all__ = ["BOTH", "SECOND", "Ear", "Gate", "Gauge", "Shop", "open_shop", "quick", "quick_async", "until"]

SECOND: Final = timedelta(seconds=1)
BOTH: Final = pytest.mark.parametrize("kind", ["gate.async", "gate.thread"])


def until(true: Callable[[], object], *, within: float = 10) -> None:
    """Return once *true* answers true; fail after *within* seconds."""
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(0.002)


class Wire:
    """A broker behind a wire that can be cut; a hook may stand before any of its methods."""

    def __init__(self, broker: SqliteBroker) -> None:
        self.broker = broker
        self.cut = False
        self.hooks: dict[str, Callable[..., Any]] = {}
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        target = getattr(self.broker, name)
        if name in ("now", "interrupt", "close", "describe"):
            return target

        def call(*arguments: Any, **options: Any) -> Any:
            self.calls[name] += 1
            if self.cut:
                raise BrokerUnavailable("the wire is cut")
            hook = self.hooks.get(name)
            return target(*arguments, **options) if hook is None else hook(target, *arguments, **options)

        return call


class Shop:
    """A queue, and a worker that may be started on it, in this process."""

    def __init__(self, path: Path, clock: ManualClock | None = None) -> None:
        self.broker = SqliteBroker(path, clock=clock)
        self.wire = Wire(self.broker)
        self.storage = SqliteStorage(path)
        self.queue = JobQueue(self.broker, self.storage)
        self.recorder = Recorder(broker=self.broker, storage=self.storage)
        self.stop = Stop()
        self.exits: list[Exit] = []
        self._thread: threading.Thread | None = None

    def worker(
        self, handlers: Iterable[Any] = (), *, observers: Iterable[Observer] = (), defaults: JobDefaults | None = None, **options: Any
    ) -> Worker:
        behind = JobQueue(self.wire, self.storage)  # type: ignore[arg-type]  # by delegation
        settings: dict[str, Any] = {
            "queues": ("*",),
            "concurrency": 4,
            "poll_interval": timedelta(milliseconds=100),
            "upkeep_interval": timedelta(milliseconds=20),
            "shutdown_timeout": 5 * SECOND,
            **options,
        }
        return Worker(
            behind,
            registry=Registry.of(*handlers),
            options=WorkerOptions(**settings),
            observers=Observers(list(observers)),
            defaults=defaults or JobDefaults(retry=RetryPolicy(base="10ms", jitter="none")),
        )

    def start(self, *handlers: Any, **options: Any) -> Worker:
        worker = self.worker(handlers, **options)
        self._thread = threading.Thread(target=lambda: self.exits.append(worker.run(self.stop)), name="worker under test")
        self._thread.start()
        return worker

    def end(self, level: StopLevel = StopLevel.GRACEFUL) -> Exit | None:
        self.stop.request(level)
        return self.join()

    def join(self) -> Exit | None:
        if self._thread is not None:
            self._thread.join(30)
            assert not self._thread.is_alive(), "the worker does not end"
        return self.exits[0] if self.exits else None

    def job(self, job: Job) -> Job:
        found = self.queue.get(job.id)
        assert found is not None
        return found

    def wait(self, job: Job, timeout: str = "10s") -> Job:
        return self.queue.wait(job.id, timeout=timeout)

    def history(self, job: Job) -> list[ExecutionState]:
        self.recorder.record_waiting()
        return [one.state for one in self.storage.job_executions(job.id)]

    def make_suspects(self, count: int, job_type: str) -> list[Job]:
        """Jobs that a worker has crashed with."""
        jobs = [self.queue.enqueue(job_type, number) for number in range(count)]
        leases = self.broker.lease(["default"], count, worker_id="dead", lease_for=30 * SECOND, wait=timedelta(0), suspects=count)
        self.broker.reclaim_worker("dead", started=[lease.job.id for lease in leases], error="SIGKILL", max_crashes=3)
        assert {self.job(job).crashes for job in jobs} == {1}
        return jobs


def open_shop(tmp_path: Path) -> Iterator[Shop]:
    """A shop of the test's own, on a file; a module makes a fixture of it: ``shop = pytest.fixture(open_shop)``."""
    shop = Shop(tmp_path / "jobqueue.db")
    yield shop
    shop.wire.cut = False
    shop.wire.hooks.clear()
    shop.end(StopLevel.AT_ONCE)
    shop.queue.close()


class Gauge:
    """Counts who is inside, and remembers the most there ever were."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.now = 0
        self.most = 0
        self.entered = 0

    def __enter__(self) -> None:
        with self._lock:
            self.now += 1
            self.entered += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.now -= 1


class Gate:
    """Handlers that stay inside until they are let go, of both kinds."""

    def __init__(self, **options: Any) -> None:
        self.open = threading.Event()
        self.inside = Gauge()

        @handler("gate.async", **options)
        async def waiting(payload: Any) -> str:
            with self.inside:
                while not self.open.is_set():
                    await asyncio.sleep(0.005)
            return "through"

        @handler("gate.thread", **options)
        def plain(payload: Any, ctx: JobContext) -> str:
            with self.inside:
                while not self.open.wait(0.005):
                    if ctx.cancelled:
                        raise InterruptedError(ctx.stop_reason)
            return "through"

        self.handlers = (waiting, plain)


class Ear(Observer):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def started(self, job: Job) -> None:
        self.heard.append(f"started {job.run}")

    def finished(self, job: Job, outcome: Any, duration: timedelta) -> None:
        self.heard.append(f"finished {job.run} {type(outcome).__name__}")

    def retried(self, job: Job, delay: timedelta, error: str) -> None:
        self.heard.append(f"retried {job.run} {error}")

    def dead(self, job: Job, reason: str, error: str) -> None:
        self.heard.append(f"dead {job.run} {reason}")

    def worker_up(self, worker: Any) -> None:
        self.heard.append("up")

    def worker_down(self, worker: Any) -> None:
        self.heard.append("down")


@handler("quick")
def quick(payload: Any) -> Any:
    return payload


@handler("quick.async")
async def quick_async(payload: Any) -> Any:
    return payload
