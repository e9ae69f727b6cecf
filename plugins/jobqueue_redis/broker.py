"""The Redis Streams broker: what each method does stands in the file named for its role."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

from jobqueue_core.broker import (
    PROTOCOL,
    Enqueued,
    EventPage,
    JobFilter,
    JobPage,
    OutboxBatch,
    OutboxKind,
    OutboxLag,
    QueueStats,
    Reclaimed,
    Renewal,
    Requeued,
    TypeInfo,
    WorkerInfo,
)

from . import control, events, fleet, inspection, outbox, producing, promoting, pruning
from .leasing import Leasing
from .link import Link
from .reclaiming import Reclaiming
from .settling import Settling
from .times import duration_ms

if TYPE_CHECKING:
    from jobqueue_core.attempt import Lease, LogLine, Release, Report, Settlement
    from jobqueue_core.job import Job, NewJob

__all__ = ["RedisBroker"]


class RedisBroker:
    """A broker on Redis >= 6.2 or Valkey, for any number of hosts.

    Args:
        url: Where it is: ``redis://``, ``rediss://``, ``unix://``, ``redis+sentinel://`` or ``redis+cluster://``.
        namespace: Prefix of all keys; empty for none.
        result_ttl: How long a finished job is kept.
        max_pending: Most executions that wait for storage; beyond, the oldest are dropped and counted.
        allow_eviction: Use a server that may evict jobs.
        wait_replicas: How many replicas must have a job before its enqueue is answered.

    Raises:
        ConfigError: The url cannot be read, or the server is set up to evict jobs.
        BrokerUnavailable: The server does not answer.
        IncompatibleData: The server is older than 6.2.
    """

    PROTOCOL = PROTOCOL

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "",
        result_ttl: timedelta = timedelta(days=1),
        max_pending: int = 1_000_000,
        allow_eviction: bool = False,
        wait_replicas: int = 0,
    ) -> None:
        self.link = Link(url, namespace=namespace, wait_replicas=wait_replicas, allow_eviction=allow_eviction)
        self._ttl_ms = duration_ms(result_ttl)
        self._max_pending = max_pending
        self._settling = Settling(self.link, ttl_ms=self._ttl_ms, max_pending=max_pending)
        self._leasing = Leasing(self.link, self._settling)
        self._reclaiming = Reclaiming(self.link, self._settling)

    def now(self) -> datetime:
        """See ``Broker``."""
        return self.link.now()

    def describe(self) -> str:
        """See ``Broker``."""
        return self.link.describe()

    def close(self) -> None:
        """See ``Broker``."""
        self._leasing.close()
        self.link.close()

    # Producer --------------------------------------------------------------------------------------------------------------------------

    def enqueue(self, jobs: Sequence[NewJob], *, not_after: datetime | None = None) -> list[Enqueued]:
        """See ``Producer``."""
        return producing.enqueue(self.link, jobs, not_after=not_after)

    def requeue(self, job: Job, *, not_after: datetime | None = None) -> Requeued:
        """See ``Producer``."""
        return producing.requeue(self.link, job, not_after=not_after)

    # Consumer --------------------------------------------------------------------------------------------------------------------------

    def lease(
        self,
        queues: Sequence[str],
        limit: int,
        *,
        worker_id: str,
        lease_for: timedelta,
        wait: timedelta,
        suspects: int,
    ) -> list[Lease]:
        """See ``Consumer``."""
        return self._leasing.lease(queues, limit, worker_id=worker_id, lease_for=lease_for, wait=wait, suspects=suspects)

    def interrupt(self) -> None:
        """See ``Consumer``."""
        self._leasing.interrupt()

    def renew(self, tokens: Sequence[str], *, worker_id: str, lease_for: timedelta) -> Renewal:
        """See ``Consumer``."""
        return self._leasing.renew(tokens, worker_id=worker_id, lease_for=lease_for)

    def settle(self, settlements: Sequence[Settlement], *, worker_id: str) -> list[bool]:  # noqa: ARG002 - the token says whose it is
        """See ``Consumer``."""
        return self._settling.settle(settlements)

    def release(self, releases: Sequence[Release], *, worker_id: str) -> list[bool]:  # noqa: ARG002 - the token says whose it is
        """See ``Consumer``."""
        return self._settling.release(releases)

    def report(self, reports: Sequence[Report], *, worker_id: str) -> None:  # noqa: ARG002 - the token says whose it is
        """See ``Consumer``."""
        self._settling.report(reports)

    def beat(self, worker: WorkerInfo) -> None:
        """See ``Consumer``."""
        fleet.beat(self.link, worker)

    def leave(self, worker_id: str) -> None:
        """See ``Consumer``."""
        fleet.leave(self.link, worker_id)

    # Upkeep ----------------------------------------------------------------------------------------------------------------------------

    def promote(self, limit: int) -> int:
        """See ``Upkeep``."""
        return promoting.promote(self.link, limit, ttl_ms=self._ttl_ms)

    def reclaim(self, limit: int, *, max_crashes: int) -> Reclaimed:
        """See ``Upkeep``."""
        return self._reclaiming.reclaim(limit, max_crashes=max_crashes)

    def reclaim_worker(self, worker_id: str, *, started: Collection[str], error: str, max_crashes: int) -> Reclaimed:
        """See ``Upkeep``."""
        reclaimed = self._reclaiming.reclaim_worker(worker_id, started=started, error=error, max_crashes=max_crashes)
        fleet.leave(self.link, worker_id)
        return reclaimed

    def prune(self, limit: int) -> int:
        """See ``Upkeep``."""
        return pruning.prune(self.link, limit, ttl_ms=self._ttl_ms, max_pending=self._max_pending)

    # Control ---------------------------------------------------------------------------------------------------------------------------

    def cancel(self, job_id: str) -> Literal["cancelled", "requested", "finished", "unknown"]:
        """See ``Control``."""
        return control.cancel(self.link, job_id, ttl_ms=self._ttl_ms)

    def pause(self, queue: str) -> None:
        """See ``Control``."""
        control.set_paused(self.link, queue, paused=True)

    def resume(self, queue: str) -> None:
        """See ``Control``."""
        control.set_paused(self.link, queue, paused=False)

    def purge(self, queue: str, limit: int) -> int:
        """See ``Control``."""
        return control.purge(self.link, queue, limit, ttl_ms=self._ttl_ms)

    # Inspection ------------------------------------------------------------------------------------------------------------------------

    def get(self, job_ids: Sequence[str]) -> list[Job | None]:
        """See ``Inspection``."""
        return inspection.get(self.link, job_ids)

    def jobs(self, wanted: JobFilter, *, cursor: str | None, limit: int) -> JobPage:
        """See ``Inspection``."""
        return inspection.jobs(self.link, wanted, cursor=cursor, limit=limit)

    def queues(self) -> list[QueueStats]:
        """See ``Inspection``."""
        return inspection.queues(self.link)

    def queue(self, name: str) -> QueueStats | None:
        """See ``Inspection``."""
        return inspection.queue(self.link, name)

    def workers(self) -> list[WorkerInfo]:
        """See ``Inspection``."""
        return fleet.workers(self.link)

    def types(self) -> list[TypeInfo]:
        """See ``Inspection``."""
        return fleet.types(self.link)

    def logs(self, job_id: str) -> list[LogLine]:
        """See ``Inspection``."""
        return inspection.logs(self.link, job_id)

    def events(self, after: str | None, *, limit: int, wait: timedelta) -> EventPage:
        """See ``Inspection``."""
        return events.read(self.link, after, limit=limit, wait=wait)

    # Outbox ----------------------------------------------------------------------------------------------------------------------------

    def outbox(self, kind: OutboxKind, limit: int) -> OutboxBatch:
        """See ``Outbox``."""
        return outbox.read(self.link, kind, limit)

    def acknowledge(self, batch: OutboxBatch) -> None:
        """See ``Outbox``."""
        outbox.acknowledge(self.link, batch)

    def outbox_lag(self) -> OutboxLag:
        """See ``Outbox``."""
        return outbox.lag(self.link)
