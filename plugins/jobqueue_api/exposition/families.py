"""The metrics themselves: their names, labels and meaning, and how they follow from the facts.

docs/metrics.md has the table for people. Labels are bounded: at most :data:`MOST_QUEUES` queues, :data:`MOST_TYPES` types and
:data:`MOST_WORKERS` worker names are shown, some 45,000 series in all; ``jobqueue_omitted`` says how many were left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from heapq import nlargest
from typing import TYPE_CHECKING, Final

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from jobqueue_core import __version__
from jobqueue_core.broker import QueueStats, WorkerInfo
from jobqueue_core.job import Priority

from .facts import MOST_TYPES

if TYPE_CHECKING:
    from jobqueue_core.broker import OutboxLag
    from jobqueue_core.histogram import Histogram
    from jobqueue_core.storage import ExecutionTotals

    from .facts import BrokerFacts, ScheduleFacts, StorageFacts

__all__ = ["BOUNDS", "MOST_QUEUES", "MOST_TYPES", "MOST_WORKERS", "Families"]

MOST_QUEUES: Final = 1_000
MOST_WORKERS: Final = 1_000
BOUNDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
"""Seconds up to which durations are counted. Changing one breaks every query over the change."""
_BOUNDS_MS: Final = tuple(bound * 1000 for bound in BOUNDS)
_LE: Final = (*map(floatToGoString, BOUNDS), "+Inf")

_Row = tuple[Sequence[str], float]
_Groups = dict[tuple[str, str, str], list[WorkerInfo]]

_NOW_BY_QUEUE: Final[tuple[tuple[str, str, Callable[[QueueStats], float]], ...]] = (
    ("processing", "Jobs that workers hold.", lambda queue: queue.processing),
    ("scheduled", "Jobs that wait for their time.", lambda queue: queue.scheduled),
    ("retrying", "Jobs that wait for their next attempt.", lambda queue: queue.retrying),
    ("paused", "1 for a queue that is paused, else 0.", lambda queue: queue.paused),
)
_TOTALS_BY_QUEUE: Final[tuple[tuple[str, str, Callable[[QueueStats], float]], ...]] = (
    ("enqueued", "Jobs that were enqueued.", lambda queue: queue.enqueued),
    ("completed", "Jobs that completed.", lambda queue: queue.completed),
    ("failed", "Runs that failed and will be retried.", lambda queue: queue.failed),
    ("dead", "Jobs that died.", lambda queue: queue.dead),
    ("cancelled", "Jobs that were cancelled, or expired.", lambda queue: queue.cancelled),
)


class Families:
    """Makes metric families of facts.

    Args:
        namespace: The value of the label ``namespace`` of every series; empty for none.
        broker: The plugin that is chosen.
        storage: Likewise.
    """

    def __init__(self, *, namespace: str, broker: str, storage: str) -> None:
        self._constant = {"namespace": namespace} if namespace else {}
        self._build = {"version": __version__, "broker": broker, "storage": storage}

    def of(self, broker: BrokerFacts | None, storage: StorageFacts | None) -> Iterator[Metric]:
        """All families that can be known; None for what does not answer."""
        yield self._info("jobqueue_build", "The release that answers, and the plugins it works with.", self._build)
        yield self._one("jobqueue_broker_up", "1 when the broker answers; 0: what it knows is left out.", broker is not None)
        yield self._one("jobqueue_storage_up", "1 when storage answers; 0: what it knows is left out.", storage is not None)
        omitted: dict[str, int] = {}
        if broker is not None:
            groups = _by_name(broker.workers)
            omitted |= {"queue": len(broker.queues) - MOST_QUEUES, "worker": len(groups) - MOST_WORKERS}
            yield from self._jobs(broker.queues)
            yield from self._queues(nlargest(MOST_QUEUES, broker.queues, key=lambda queue: queue.enqueued))
            yield from self._workers(broker.workers, groups)
            yield from self._outbox(broker.outbox)
        if storage is not None:
            if storage.totals is not None:
                omitted["type"] = storage.totals.types - len(storage.totals.by_type)
                yield from self._executions(storage.totals)
            if storage.dead_letters is not None:
                yield self._one("jobqueue_dead_letters_open", "Dead letters that nobody has retried or discarded.", storage.dead_letters)
            if storage.schedules is not None:
                yield from self._schedules(storage.schedules, None if broker is None else broker.now)
        if omitted:
            rows = (((kind,), max(count, 0)) for kind, count in omitted.items())
            yield self._gauge("jobqueue_omitted", "Queues, types and worker names that are too many to be shown one by one.", ("kind",), rows)

    # What the broker knows -------------------------------------------------------------------------------------------------------------

    def _jobs(self, queues: Sequence[QueueStats]) -> Iterator[Metric]:
        """Of all queues, those too that are left out below."""
        counts = Counter[str](waiting=0, processing=0, scheduled=0, retrying=0)
        for queue in queues:
            counts.update(waiting=queue.waiting, processing=queue.processing, scheduled=queue.scheduled, retrying=queue.retrying)
        rows = (((state,), count) for state, count in counts.items())
        yield self._gauge("jobqueue_jobs", "Jobs that have not ended, of all queues.", ("state",), rows)

    def _queues(self, queues: Sequence[QueueStats]) -> Iterator[Metric]:
        depths = (((queue.name, priority.value), queue.depth.get(priority, 0)) for queue in queues for priority in Priority)
        yield self._gauge("jobqueue_queue_jobs", "Jobs that wait for a worker, by priority.", ("queue", "priority"), depths)
        ages = (((queue.name,), _seconds(queue.oldest_age)) for queue in queues)
        yield self._gauge(
            "jobqueue_queue_oldest_age_seconds", "How long the job that has been ready longest has waited; 0 when none waits.", ("queue",), ages
        )
        for name, meaning, value in _NOW_BY_QUEUE:
            yield self._gauge(f"jobqueue_queue_{name}", meaning, ("queue",), (((queue.name,), value(queue)) for queue in queues))
        for name, meaning, value in _TOTALS_BY_QUEUE:
            yield self._counter(f"jobqueue_queue_{name}", meaning, ("queue",), (((queue.name,), value(queue)) for queue in queues))

    def _workers(self, workers: Sequence[WorkerInfo], groups: _Groups) -> Iterator[Metric]:
        stopping = sum(worker.stopping for worker in workers)
        states: tuple[_Row, ...] = ((("working",), len(workers) - stopping), (("stopping",), stopping))
        yield self._gauge("jobqueue_workers", "Worker processes that live.", ("state",), states)
        largest = nlargest(MOST_WORKERS, groups.items(), key=lambda group: sum(worker.concurrency for worker in group[1]))
        labels = ("name", "host", "version")
        processes = ((group, len(members)) for group, members in largest)
        yield self._gauge("jobqueue_worker_processes", "Worker processes that live, by name, host and release.", labels, processes)
        slots = ((group, sum(worker.concurrency for worker in members)) for group, members in largest)
        yield self._gauge("jobqueue_worker_concurrency", "Jobs that these workers run at once at most.", labels, slots)
        running = ((group, sum(len(worker.running) for worker in members)) for group, members in largest)
        yield self._gauge("jobqueue_worker_running", "Jobs that these workers run, as they said within the last seconds.", labels, running)

    def _outbox(self, lag: OutboxLag) -> Iterator[Metric]:
        waiting: tuple[_Row, ...] = ((("history",), lag.history), (("dead",), lag.dead))
        yield self._gauge("jobqueue_outbox_entries", "Executions and dead letters that wait to be recorded in storage.", ("kind",), waiting)
        yield self._one(
            "jobqueue_outbox_oldest_age_seconds", "How long the oldest entry of the outbox has waited; 0 without any.", _seconds(lag.oldest_age)
        )
        dropped = "Executions that were never recorded because more than [history] max_pending waited."
        yield self._counter("jobqueue_outbox_dropped", dropped, (), [((), lag.dropped)])

    # What storage knows ----------------------------------------------------------------------------------------------------------------

    def _executions(self, totals: ExecutionTotals) -> Iterator[Metric]:
        rows = (((name, state.value), count) for name, one in totals.by_type.items() for state, count in one.counts.items())
        yield self._counter("jobqueue_executions", "Runs that have ended, by job type and how they ended.", ("type", "state"), rows)
        meaning = "How long runs took that completed, failed or died. A run within 5 % of a bound may be counted on its other side."
        family = HistogramMetricFamily("jobqueue_execution_duration_seconds", meaning, labels=self._labels(("type",)), unit="seconds")
        for name, one in totals.by_type.items():
            family.add_metric(self._values((name,)), _buckets(one.durations), one.durations.total_ms / 1000)
        yield family

    def _schedules(self, schedules: ScheduleFacts, now: datetime | None) -> Iterator[Metric]:
        rows = (((state,), count) for state, count in schedules.counts.items())
        yield self._gauge("jobqueue_schedules", "Schedules, by whether they fire.", ("state",), rows)
        # Ages are by the broker's clock: without it they are unknown.
        if now is not None:
            late = _seconds(None if schedules.next_run is None else now - schedules.next_run)
            yield self._one("jobqueue_schedule_lag_seconds", "How late the schedule is that should have fired first; 0 when none is due.", late)
            age = _seconds(None if schedules.unsent_since is None else now - schedules.unsent_since)
            meaning = "How long ago the oldest tick was claimed that is not known to be with the broker; 0 without any."
            yield self._one("jobqueue_schedule_unsent_age_seconds", meaning, age)

    # Families --------------------------------------------------------------------------------------------------------------------------

    def _one(self, name: str, meaning: str, value: float) -> Metric:
        return self._gauge(name, meaning, (), [((), value)])

    def _gauge(self, name: str, meaning: str, labels: Sequence[str], rows: Iterable[_Row]) -> Metric:
        family = GaugeMetricFamily(name, meaning, labels=self._labels(labels), unit="seconds" if name.endswith("_seconds") else "")
        for values, value in rows:
            family.add_metric(self._values(values), float(value))
        return family

    def _counter(self, name: str, meaning: str, labels: Sequence[str], rows: Iterable[_Row]) -> Metric:
        family = CounterMetricFamily(name, meaning, labels=self._labels(labels))
        for values, value in rows:
            family.add_metric(self._values(values), float(value))
        return family

    def _info(self, name: str, meaning: str, facts: dict[str, str]) -> Metric:
        return InfoMetricFamily(name, meaning, value=self._constant | facts)

    def _labels(self, labels: Sequence[str]) -> tuple[str, ...]:
        return (*self._constant, *labels)

    def _values(self, values: Sequence[str]) -> tuple[str, ...]:
        return (*self._constant.values(), *values)


def _by_name(workers: Sequence[WorkerInfo]) -> _Groups:
    """Workers by name, host and release. A name that was made of host and process id is none: it would be a new series at each start."""
    groups: _Groups = {}
    for worker in workers:
        name = "" if worker.name == f"{worker.host}:{worker.pid}" else worker.name
        groups.setdefault((name, worker.host, worker.version), []).append(worker)
    return groups


def _buckets(durations: Histogram) -> list[tuple[str, float]]:
    return list(zip(_LE, (*durations.up_to(_BOUNDS_MS), durations.count), strict=True))


def _seconds(duration: timedelta | None) -> float:
    """Zero when there is nothing to have an age, or what is due lies ahead."""
    return 0.0 if duration is None else max(duration.total_seconds(), 0.0)
