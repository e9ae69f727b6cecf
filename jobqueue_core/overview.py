"""The whole in numbers: what ``jobqueue stats`` and ``GET /stats`` show."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypedDict

from jobqueue_core.errors import IncompatibleData, StorageError
from jobqueue_core.objects import ExecutionStatisticsObject
from jobqueue_core.storage import DeadLetterFilter, Storage, TypeStatistics

if TYPE_CHECKING:
    from jobqueue_core.broker import Broker
    from jobqueue_core.objects import StatisticsObject

__all__ = ["overview"]

_DAY: Final = timedelta(days=1)


class _Remembered(TypedDict):
    """What storage knows."""

    executions_24h: ExecutionStatisticsObject | None
    types_24h: dict[str, ExecutionStatisticsObject] | None
    dead_letter_count: int | None
    storage_error: str | None


def overview(broker: Broker, storage: Storage | None) -> StatisticsObject:
    """Add up what *broker* and *storage* know.

    While storage is away its part is None, and ``storage_error`` says why: how far recording is behind must be seen just then.

    Raises:
        BrokerUnavailable: No answer.
    """
    queues = broker.queues()
    lag = broker.outbox_lag()
    return {
        "jobs": {
            "waiting": sum(queue.waiting for queue in queues),
            "processing": sum(queue.processing for queue in queues),
            "scheduled": sum(queue.scheduled for queue in queues),
            "retrying": sum(queue.retrying for queue in queues),
        },
        "totals": {
            "enqueued": sum(queue.enqueued for queue in queues),
            "completed": sum(queue.completed for queue in queues),
            "failed": sum(queue.failed for queue in queues),
            "dead": sum(queue.dead for queue in queues),
            "cancelled": sum(queue.cancelled for queue in queues),
        },
        "workers": len(broker.workers()),
        "outbox_lag": {
            "history": lag.history,
            "dead": lag.dead,
            "oldest_age": round(lag.oldest_age.total_seconds(), 3),
            "dropped": lag.dropped,
        },
        **_remembered(broker, storage),
    }


def _remembered(broker: Broker, storage: Storage | None) -> _Remembered:
    nothing: _Remembered = {"executions_24h": None, "types_24h": None, "dead_letter_count": None, "storage_error": None}
    if storage is None:
        return nothing
    now = broker.now()
    try:
        # Storage is of roles that one may lack.
        statistics = storage.statistics(since=now - _DAY, until=now + timedelta(minutes=1)) if hasattr(storage, "statistics") else None
        open_ones = storage.count_dead_letters(DeadLetterFilter()) if hasattr(storage, "count_dead_letters") else None
    except (StorageError, IncompatibleData) as error:
        return nothing | {"storage_error": str(error)}
    return {
        "executions_24h": None if statistics is None else _figures(statistics.overall),
        "types_24h": None if statistics is None else {name: _figures(one) for name, one in sorted(statistics.by_type.items())},
        "dead_letter_count": open_ones,
        "storage_error": None,
    }


def _figures(statistics: TypeStatistics) -> ExecutionStatisticsObject:
    return {
        "total": statistics.total,
        "completed": statistics.completed,
        "failed": statistics.failed,
        "dead": statistics.dead,
        "cancelled": statistics.cancelled,
        "snoozed": statistics.snoozed,
        "returned": statistics.returned,
        "lost": statistics.lost,
        "avg_duration_ms": _rounded(statistics.avg_duration_ms),
        "p50_duration_ms": _rounded(statistics.p50_duration_ms),
        "p95_duration_ms": _rounded(statistics.p95_duration_ms),
        "p99_duration_ms": _rounded(statistics.p99_duration_ms),
    }


def _rounded(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else round(milliseconds, 3)
