"""An installation whose metrics a test reads."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Final

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from jobqueue_api.exposition.exposition import Exposition
from jobqueue_core import JobQueue
from jobqueue_core.app import App
from jobqueue_core.attempt import Lease
from jobqueue_core.recorder import Recorder
from jobqueue_core.testing import ManualClock
from jobqueue_sqlite import SqliteBroker, SqliteStorage

__all__ = ["OF_BROKER", "OF_STORAGE", "SECOND", "Metrics", "MetricsSite", "scraped"]

SECOND: Final = timedelta(seconds=1)
OF_BROKER: Final = ("jobqueue_queue", "jobqueue_jobs", "jobqueue_worker", "jobqueue_outbox")
OF_STORAGE: Final = ("jobqueue_execution", "jobqueue_dead_letters", "jobqueue_schedule")


class Metrics:
    """An answer that was read: ``metrics("jobqueue_queue_jobs", queue="mail", priority="high")``."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self.families = list(families)
        self.samples = {(sample.name, frozenset(sample.labels.items())): sample.value for one in self.families for sample in one.samples}
        assert len(self.samples) == sum(len(one.samples) for one in self.families), "a series stands there twice"
        self.names: frozenset[str] = frozenset(name for name, _ in self.samples)

    def __call__(self, name: str, /, **labels: str) -> float:
        return self.samples[name, frozenset(labels.items())]

    def labels(self, name: str) -> list[dict[str, str]]:
        """The labels of all series of a name."""
        return [dict(labels) for found, labels in self.samples if found == name]

    def names_of(self, prefixes: tuple[str, ...]) -> set[str]:
        """What begins with one of *prefixes*."""
        return {name for name in self.names if name.startswith(prefixes)}


def scraped(exposition: Exposition) -> Metrics:
    """What an old Prometheus gets."""
    return Metrics(text_string_to_metric_families(exposition.scrape(None, None).data.decode()))


class MetricsSite:
    """An app on a SQLite file whose clock stands still, its metrics, and hands that run jobs without a worker."""

    def __init__(self, folder: Path) -> None:
        self.app = App.from_config(None, environ={}, overrides={"storage.url": f"sqlite:///{folder}/jobqueue.db"})
        self.clock = ManualClock()
        self.broker = SqliteBroker(folder / "jobqueue.db", clock=self.clock, max_pending=5)
        self.storage = SqliteStorage(folder / "jobqueue.db")
        self.app._broker, self.app._storage = self.broker, self.storage
        self.queue = JobQueue(self.broker, self.storage)
        self.exposition = Exposition(self.app)

    def scrape(self) -> Metrics:
        return scraped(self.exposition)

    def lease(self, queue: str = "default", limit: int = 500) -> list[Lease]:
        self.broker.promote(1000)
        return self.broker.lease([queue], limit, worker_id="worker-1", lease_for=30 * SECOND, wait=timedelta(0), suspects=1)

    def record(self) -> None:
        """Bring what waits in the outbox to storage."""
        Recorder(broker=self.broker, storage=self.storage).record_waiting()
