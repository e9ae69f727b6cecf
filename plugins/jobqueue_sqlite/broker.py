"""The embedded broker: each method is one transaction; what happens in it stands in the file named for its role."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import msgspec
from msgspec.structs import replace

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

from . import chores, control, events, inspection, leasing, outbox, producing
from .database import Database
from .doorbell import Doorbell
from .faults import broker_faults
from .ledger import Ledger
from .statements import statement
from .times import to_us

if TYPE_CHECKING:
    from jobqueue_core.attempt import Lease, LogLine, Release, Report, Settlement
    from jobqueue_core.job import Job, NewJob

__all__ = ["SqliteBroker"]

_RECLAIM_STEP: Final = 500

_encoder = msgspec.msgpack.Encoder()


def _host_clock() -> datetime:
    return datetime.now(UTC)


class SqliteBroker:
    """A broker in one SQLite file, for any number of processes on one machine.

    Args:
        path: The file; made when it is missing.
        result_ttl: How long a finished job is kept.
        max_pending: Most executions that wait for storage; beyond, the oldest are dropped and counted.
        clock: The broker's clock; None for the host's.
        monotonic: A clock that never jumps, to notice when the broker's does; None for the host's, unless *clock* is given.
        busy_timeout: How long to wait for other processes that write.

    Raises:
        IncompatibleData: The file is damaged, not ours, or newer than this release.
        BrokerUnavailable: It cannot be opened.
    """

    PROTOCOL = PROTOCOL

    def __init__(
        self,
        path: Path | str,
        *,
        result_ttl: timedelta = timedelta(days=1),
        max_pending: int = 1_000_000,
        clock: Callable[[], datetime] | None = None,
        monotonic: Callable[[], float] | None = None,
        busy_timeout: timedelta = timedelta(seconds=5),
    ) -> None:
        self._result_ttl = result_ttl
        self._max_pending = max_pending
        self._clock = _host_clock if clock is None else clock
        self._clock_watch = chores.ClockWatch(self._clock, time.monotonic if monotonic is None and clock is None else monotonic)
        self._bell = Doorbell()
        self._event_bell = Doorbell()
        self.database: Final = Database(path, busy_timeout=busy_timeout, faults=broker_faults)

    @contextmanager
    def _ledger(self) -> Iterator[Ledger]:
        """One transaction; its work is written at the end, and waiting leases are woken when it has made jobs available."""
        with self.database.write() as connection:
            ledger = Ledger(connection, self._now_us(), result_ttl=self._result_ttl, max_pending=self._max_pending)
            yield ledger
            ledger.write()
        if ledger.rang:
            self._bell.ring()

    def _now_us(self) -> int:
        return to_us(self._clock())

    def now(self) -> datetime:
        """See ``Broker``."""
        return self._clock()

    def describe(self) -> str:
        """See ``Broker``."""
        return f"sqlite:///{self.database.path}"

    def close(self) -> None:
        """See ``Broker``."""
        self._bell.interrupt()
        self._event_bell.interrupt()
        self.database.close()

    # Producer --------------------------------------------------------------------------------------------------------------------------

    def enqueue(self, jobs: Sequence[NewJob], *, not_after: datetime | None = None) -> list[Enqueued]:
        """See ``Producer``."""
        with self._ledger() as ledger:
            return producing.enqueue(ledger, jobs, not_after=not_after)

    def requeue(self, job: Job, *, not_after: datetime | None = None) -> Requeued:
        """See ``Producer``."""
        with self._ledger() as ledger:
            return producing.requeue(ledger, job, not_after=not_after)

    # Consumer --------------------------------------------------------------------------------------------------------------------------

    def lease(self, queues: Sequence[str], limit: int, *, worker_id: str, lease_for: timedelta, wait: timedelta, suspects: int) -> list[Lease]:
        """See ``Consumer``."""
        wanted = leasing.Taking(queues=tuple(queues), limit=limit, worker_id=worker_id, lease_for=lease_for, suspects=suspects)
        with self.database.read() as connection, self._bell.watch(connection, wait.total_seconds()) as watch:
            while True:
                watch.look()
                # Looked at first without the write lock, so that idle workers never stand in the way of busy ones.
                if leasing.has_work(connection, wanted.queues):
                    with self._ledger() as ledger:
                        leases, more = leasing.take(ledger, wanted)
                    if leases:
                        return leases
                    if more:
                        continue
                if not watch.changed():
                    return []

    def interrupt(self) -> None:
        """See ``Consumer``."""
        self._bell.interrupt()

    def renew(self, tokens: Sequence[str], *, worker_id: str, lease_for: timedelta) -> Renewal:  # noqa: ARG002 - the token says whose it is
        """See ``Consumer``."""
        with self._ledger() as ledger:
            return leasing.renew(ledger, tokens, lease_for=lease_for)

    def settle(self, settlements: Sequence[Settlement], *, worker_id: str) -> list[bool]:  # noqa: ARG002 - the token says whose it is
        """See ``Consumer``."""
        with self._ledger() as ledger:
            return leasing.settle(ledger, settlements)

    def release(self, releases: Sequence[Release], *, worker_id: str) -> list[bool]:  # noqa: ARG002 - the token says whose it is
        """See ``Consumer``."""
        with self._ledger() as ledger:
            return leasing.release(ledger, releases)

    def report(self, reports: Sequence[Report], *, worker_id: str) -> None:  # noqa: ARG002 - the token says whose it is
        """See ``Consumer``."""
        with self._ledger() as ledger:
            leasing.report(ledger, reports)

    def beat(self, worker: WorkerInfo) -> None:
        """See ``Consumer``."""
        with self._ledger() as ledger:
            row = {"id": worker.id, "beat_us": ledger.now_us, "record": _encoder.encode(worker)}
            ledger.connection.execute(statement("workers_beat"), row)
            seen = [{"type": one.type, "seen_us": ledger.now_us, "record": _encoder.encode(replace(one, last_seen=None))} for one in worker.types]
            ledger.connection.executemany(statement("types_seen"), seen)

    def leave(self, worker_id: str) -> None:
        """See ``Consumer``."""
        with self._ledger() as ledger:
            ledger.connection.execute(statement("workers_leave"), {"id": worker_id})

    # Upkeep ----------------------------------------------------------------------------------------------------------------------------

    def promote(self, limit: int) -> int:
        """See ``Upkeep``."""
        with self._ledger() as ledger:
            return chores.promote(ledger, limit)

    def reclaim(self, limit: int, *, max_crashes: int) -> Reclaimed:
        """See ``Upkeep``."""
        with self._ledger() as ledger:
            return chores.reclaim(ledger, limit, jumped=self._clock_watch.jumped(), max_crashes=max_crashes)

    def reclaim_worker(self, worker_id: str, *, started: Collection[str], error: str, max_crashes: int) -> Reclaimed:
        """See ``Upkeep``."""
        reclaimed = Reclaimed()
        more = True
        while more:
            with self._ledger() as ledger:
                step, more = chores.reclaim_worker(ledger, worker_id, _RECLAIM_STEP, started=started, error=error, max_crashes=max_crashes)
            reclaimed = chores.merge(reclaimed, step)
        return reclaimed

    def prune(self, limit: int) -> int:
        """See ``Upkeep``."""
        with self._ledger() as ledger:
            return chores.prune(ledger, limit)

    # Control ---------------------------------------------------------------------------------------------------------------------------

    def cancel(self, job_id: str) -> Literal["cancelled", "requested", "finished", "unknown"]:
        """See ``Control``."""
        with self._ledger() as ledger:
            return control.cancel(ledger, job_id)

    def pause(self, queue: str) -> None:
        """See ``Control``."""
        with self._ledger() as ledger:
            control.set_paused(ledger, queue, paused=True)

    def resume(self, queue: str) -> None:
        """See ``Control``."""
        with self._ledger() as ledger:
            control.set_paused(ledger, queue, paused=False)

    def purge(self, queue: str, limit: int) -> int:
        """See ``Control``."""
        with self._ledger() as ledger:
            return control.purge(ledger, queue, limit)

    # Inspection ------------------------------------------------------------------------------------------------------------------------

    def get(self, job_ids: Sequence[str]) -> list[Job | None]:
        """See ``Inspection``."""
        with self.database.read() as connection:
            return inspection.get(connection, job_ids, self._now_us())

    def jobs(self, wanted: JobFilter, *, cursor: str | None, limit: int) -> JobPage:
        """See ``Inspection``."""
        with self.database.read() as connection:
            return inspection.jobs(connection, wanted, self._now_us(), cursor=cursor, limit=limit)

    def queues(self) -> list[QueueStats]:
        """See ``Inspection``."""
        with self.database.read() as connection:
            return inspection.queues(connection, None, self._now_us())

    def queue(self, name: str) -> QueueStats | None:
        """See ``Inspection``."""
        with self.database.read() as connection:
            return next(iter(inspection.queues(connection, name, self._now_us())), None)

    def workers(self) -> list[WorkerInfo]:
        """See ``Inspection``."""
        with self.database.read() as connection:
            return inspection.workers(connection, self._now_us())

    def types(self) -> list[TypeInfo]:
        """See ``Inspection``."""
        with self.database.read() as connection:
            return inspection.types(connection, self._now_us())

    def logs(self, job_id: str) -> list[LogLine]:
        """See ``Inspection``."""
        with self.database.read() as connection:
            return inspection.logs(connection, job_id)

    def events(self, after: str | None, *, limit: int, wait: timedelta) -> EventPage:
        """See ``Inspection``."""
        with self.database.read() as connection, self._event_bell.watch(connection, wait.total_seconds()) as watch:
            if events.Log(connection).needs_listening(self._now_us()):
                with self._ledger() as ledger:
                    events.listen(ledger)
            page = events.read(connection, after, limit)
            while not page.events and not page.reset:
                watch.look()
                page = events.read(connection, page.position, limit)
                if page.events or page.reset or not watch.changed():
                    break
            return page

    # Outbox ----------------------------------------------------------------------------------------------------------------------------

    def outbox(self, kind: OutboxKind, limit: int) -> OutboxBatch:
        """See ``Outbox``."""
        with self.database.read() as connection:
            return outbox.read(connection, kind, limit)

    def acknowledge(self, batch: OutboxBatch) -> None:
        """See ``Outbox``."""
        with self._ledger() as ledger:
            outbox.acknowledge(ledger, batch)

    def outbox_lag(self) -> OutboxLag:
        """See ``Outbox``."""
        with self.database.read() as connection:
            return outbox.lag(connection, self._now_us())
