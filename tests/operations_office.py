"""Where an operator works: a queue on a file, a clock that is moved, and hands that run jobs without a worker."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from jobqueue_core import Job, JobQueue
from jobqueue_core.attempt import Lease
from jobqueue_core.operations import Operations
from jobqueue_core.recorder import Recorder
from jobqueue_core.testing import ManualClock
from jobqueue_core.testing.factories import completed, died
from jobqueue_sqlite.broker import SqliteBroker
from jobqueue_sqlite.storage import SqliteStorage

__all__ = ["SECOND", "UNKNOWN", "Office", "open_office"]

UNKNOWN: Final = "01890a5d-ac96-774b-bcce-b302099a8057"
SECOND: Final = timedelta(seconds=1)


class Office:
    """A queue on a file, a clock, and hands that run jobs without a worker."""

    def __init__(self, path: Path) -> None:
        self.clock = ManualClock()
        self.broker = SqliteBroker(path, clock=self.clock, result_ttl=timedelta(minutes=1))
        self.storage = SqliteStorage(path)
        self.queue = JobQueue(self.broker, self.storage)
        self.operations: Operations = self.queue.operations.acting_as("cli:ada")
        self.recorder = Recorder(broker=self.broker, storage=self.storage)

    def lease(self, queue: str = "default", limit: int = 500) -> list[Lease]:
        self.broker.promote(1000)
        return self.broker.lease([queue], limit, worker_id="worker-1", lease_for=30 * SECOND, wait=timedelta(0), suspects=1)

    def kill(self, job_type: str = "t", payload: object = None, **options: Any) -> Job:
        """Enqueue a job and let it die."""
        job = self.queue.enqueue(job_type, payload, **options)
        self.kill_all(job.queue)
        return job

    def kill_all(self, queue: str = "default", error: str = "ValueError: no") -> int:
        """Let everything that waits die; says how many."""
        leases = self.lease(queue)
        assert all(self.broker.settle([died(lease, error=error) for lease in leases], worker_id="worker-1"))
        self.clock.advance(SECOND)
        self.recorder.record_waiting()
        return len(leases)

    def complete_all(self, queue: str = "default") -> list[Job]:
        leases = self.lease(queue)
        assert all(self.broker.settle([completed(lease, b"1") for lease in leases], worker_id="worker-1"))
        self.clock.advance(SECOND)
        self.recorder.record_waiting()
        return [lease.job for lease in leases]

    def forget(self) -> None:
        """Let the broker forget what has finished."""
        self.recorder.record_waiting()
        self.clock.advance(timedelta(minutes=2))
        while self.broker.prune(1000):
            pass


def open_office(tmp_path: Path) -> Iterator[Office]:
    """An office of the test's own, on a file; a module makes a fixture of it: ``office = pytest.fixture(open_office)``."""
    office = Office(tmp_path / "jobqueue.db")
    with office.queue:
        yield office
