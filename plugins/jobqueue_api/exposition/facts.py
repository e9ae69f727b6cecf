"""What the metrics tell: read from broker and storage, each in few calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal

import attrs

from jobqueue_core.broker import OutboxLag, QueueStats, WorkerInfo
from jobqueue_core.storage import DeadLetterFilter, ExecutionTotals

if TYPE_CHECKING:
    from jobqueue_core.broker import Broker
    from jobqueue_core.storage import Schedule, Storage

__all__ = ["MOST_TYPES", "BrokerFacts", "ScheduleFacts", "ScheduleState", "StorageFacts", "read_broker", "read_storage"]

MOST_TYPES: Final = 1_000
"""Of how many job types storage is asked for totals."""
_EVER: Final = datetime(9999, 1, 1, tzinfo=UTC)

ScheduleState = Literal["firing", "paused", "disabled"]


@attrs.frozen(kw_only=True)
class BrokerFacts:
    """What the broker knows, and its clock at that time."""

    now: datetime
    queues: Sequence[QueueStats]
    workers: Sequence[WorkerInfo]
    outbox: OutboxLag


@attrs.frozen(kw_only=True)
class ScheduleFacts:
    """Schedules in numbers."""

    counts: Mapping[ScheduleState, int]
    next_run: datetime | None
    """The earliest moment at which one is due, or was; None without any that fires."""
    unsent_since: datetime | None
    """When the oldest tick that is not known to be with the broker was claimed; None without any."""


@attrs.frozen(kw_only=True)
class StorageFacts:
    """What storage knows; None is what a storage that plays only some of the roles does not."""

    totals: ExecutionTotals | None
    dead_letters: int | None
    schedules: ScheduleFacts | None


def read_broker(broker: Broker) -> BrokerFacts:
    """Ask the broker.

    Raises:
        BrokerError: It does not answer, or not all of it.
    """
    return BrokerFacts(queues=broker.queues(), workers=broker.workers(), outbox=broker.outbox_lag(), now=broker.now())


def read_storage(storage: Storage) -> StorageFacts:
    """Ask storage.

    Raises:
        StorageError: It does not answer, or not all of it.
        IncompatibleData: Its schema is of another release.
    """
    return StorageFacts(
        totals=storage.totals(MOST_TYPES) if hasattr(storage, "totals") else None,
        dead_letters=storage.count_dead_letters(DeadLetterFilter()) if hasattr(storage, "count_dead_letters") else None,
        schedules=_read_schedules(storage) if hasattr(storage, "schedules") else None,
    )


def _read_schedules(storage: Storage) -> ScheduleFacts:
    schedules = storage.schedules()
    counts = Counter(_state(schedule) for schedule in schedules)
    unsent = storage.unsent_ticks(_EVER, 1)
    states: tuple[ScheduleState, ...] = ("firing", "paused", "disabled")
    return ScheduleFacts(
        counts={state: counts[state] for state in states},
        next_run=min((schedule.next_run for schedule in schedules if schedule.fires and schedule.next_run is not None), default=None),
        unsent_since=unsent[0].claimed_at if unsent else None,
    )


def _state(schedule: Schedule) -> ScheduleState:
    if schedule.fires:
        return "firing"
    return "paused" if schedule.enabled else "disabled"
