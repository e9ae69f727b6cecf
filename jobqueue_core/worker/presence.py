"""What a worker says of itself: to the broker, the log and observers."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from time import monotonic
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from jobqueue_core._version import __version__
from jobqueue_core.broker import RunningJob, TypeInfo, WorkerInfo
from jobqueue_core.errors import BrokerError
from jobqueue_core.histogram import Histogram
from jobqueue_core.job import Priority
from jobqueue_core.requests import DEFAULT_QUEUE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from jobqueue_core.broker import Broker
    from jobqueue_core.handlers import Registry
    from jobqueue_core.middleware import Metrics
    from jobqueue_core.observers import Observers
    from jobqueue_core.service import Stop

__all__ = ["Presence", "Summary"]

_log = logging.getLogger("jobqueue.worker")
_SUMMARY: Final = 10.0


class Presence:
    """A worker's face.

    Args:
        broker: Where it beats.
        registry: What it serves.
        observers: Told when it comes and goes.
        stop: Tells whether it is stopping.
    """

    def __init__(
        self,
        broker: Broker,
        registry: Registry,
        observers: Observers,
        stop: Stop,
        *,
        worker_id: str,
        name: str | None,
        queues: Sequence[str],
        concurrency: int,
        lease: timedelta,
    ) -> None:
        self._broker = broker
        self._observers = observers
        self._stop = stop
        self._own_queues: dict[str, list[str]] = {}
        """The types of handlers that have a queue of their own, by queue."""
        for spec in registry:
            if spec.options.queue is not None:
                self._own_queues.setdefault(spec.options.queue, []).append(spec.type)
        self._still = WorkerInfo(
            id=worker_id,
            name=name or f"{socket.gethostname()}:{os.getpid()}",
            host=socket.gethostname(),
            pid=os.getpid(),
            version=__version__,
            queues=tuple(queues),
            concurrency=concurrency,
            lease=lease,
            started_at=broker.now(),
            types=_published(registry),
        )

    def describe(self, running: Sequence[RunningJob] = ()) -> WorkerInfo:
        """The heartbeat of a worker that is running *running*."""
        return replace(self._still, running=tuple(running), stopping=bool(self._stop.level))

    def announce(self) -> None:
        """Say that it is up."""
        info = self.describe()
        with contextlib.suppress(BrokerError):  # the keeper says so, and goes on trying
            self._broker.beat(info)
        types = [one.type for one in info.types]
        facts = {"worker": info.id, "queues": list(info.queues), "concurrency": info.concurrency, "handlers": types}
        _log.info("worker up", extra={"fields": facts})
        if not types:
            _log.warning("no handlers are installed: every job will wait as unknown; install a handler package")
        self._warn_of_unserved_queues()
        if self._observers.worker_up is not None:
            self._observers.worker_up(info)

    def _warn_of_unserved_queues(self) -> None:
        """A handler whose own queue is not among those of this worker: its jobs will not come here, and the mistake is seen nowhere else."""
        served = self._still.queues
        if "*" in served:
            return
        for queue, types in sorted(self._own_queues.items()):
            if queue not in served and not self._someone_else_serves(queue):
                _log.warning(
                    'no worker serves queue %r of a handler that is installed here: add it to [worker] queues (or "*", all others)',
                    queue,
                    extra={"fields": {"queue": queue, "types": types, "queues": list(served)}},
                )

    def _someone_else_serves(self, queue: str) -> bool:
        try:
            return any("*" in other.queues or queue in other.queues for other in self._broker.workers() if other.id != self._still.id)
        except BrokerError:  # the keeper says so
            return False

    def retire(self, counts: Mapping[str, int], *, may_leave: bool) -> None:
        """Say that it is down, with how many runs ended how; to the broker too if it *may leave*: it holds nothing, and the broker answers."""
        if may_leave:
            with contextlib.suppress(BrokerError):  # it will be forgotten when its heart has not beaten for a while
                self._broker.leave(self._still.id)
        if self._observers.worker_down is not None:
            self._observers.worker_down(self.describe())
        wrong = {"observer_errors": self._observers.errors} if self._observers.errors else {}
        _log.info("worker down", extra={"fields": {"worker": self._still.id, **counts, **wrong}})


class Summary:
    """One line every ten seconds in which something ran."""

    def __init__(self, worker_id: str, metrics: Metrics, counts: Mapping[str, int], observers: Observers) -> None:
        self._worker_id = worker_id
        self._observers = observers
        self._errors = 0
        self._durations = Histogram()
        self._metrics = metrics
        self._counts = counts
        self._at = monotonic()
        self._started = 0
        self._before: dict[str, int] = {}

    def log(self, now: float) -> None:
        """Log the line if it is time."""
        elapsed = now - self._at
        if elapsed < _SUMMARY:
            return
        counts, started = dict(self._counts), self._metrics.started
        fresh = {name: counts.get(name, 0) - self._before.get(name, 0) for name in ("completed", "failed", "dead")}
        begun, errors = started - self._started, self._observers.errors - self._errors
        self._at, self._before, self._started, self._errors = now, counts, started, self._observers.errors
        if not begun and not any(fresh.values()) and not errors:
            return
        rate = round(sum(fresh.values()) / elapsed, 1)
        facts = {"worker": self._worker_id, "started": begun, **fresh, "rate": rate, "p95_ms": round(self._p95(), 3)}
        if errors:
            facts["observer_errors"] = errors
        _log.info("summary", extra={"fields": facts})

    def _p95(self) -> float:
        """In milliseconds, of the runs since it was last asked for."""
        total, before = self._metrics.total(), self._durations.buckets
        self._durations = total
        return Histogram({bucket: count - before.get(bucket, 0) for bucket, count in total.buckets.items()}).percentile(0.95) or 0.0


def _published(registry: Registry) -> tuple[TypeInfo, ...]:
    return tuple(
        TypeInfo(
            type=spec.type,
            queue=spec.options.queue or DEFAULT_QUEUE,
            priority=spec.options.priority or Priority.MEDIUM,
            description=spec.description,
            payload_schema=spec.payload_schema(),
            aliases=spec.options.aliases,
        )
        for spec in registry
    )
