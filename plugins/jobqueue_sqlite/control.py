"""What an operator may change."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from jobqueue_core import lifecycle
from jobqueue_core.job import JobState

from .records import JobRow, bury, job_of, rows_by_id
from .statements import statement

if TYPE_CHECKING:
    from .ledger import Ledger

__all__ = ["cancel", "purge", "set_paused"]


def cancel(ledger: Ledger, job_id: str) -> Literal["cancelled", "requested", "finished", "unknown"]:
    """See ``Control.cancel``."""
    row = rows_by_id(ledger.connection, [job_id]).get(job_id)
    if row is None:
        return "unknown"
    match JobState(row.state):
        case JobState.PROCESSING:
            ledger.connection.execute(statement("jobs_request_cancel"), {"number": row.number})
            ledger.event("cancel_requested", id=job_id, type=row.type, queue=row.queue)
            return "requested"
        case JobState.SCHEDULED | JobState.QUEUED | JobState.RETRYING:
            if _cancel_rows(ledger, [row]):
                ledger.event("cancelled", id=job_id, type=row.type, queue=row.queue)
                return "cancelled"
            return "finished"
        case JobState.COMPLETED | JobState.DEAD | JobState.CANCELLED:
            return "finished"


def set_paused(ledger: Ledger, queue: str, *, paused: bool) -> None:
    """See ``Control.pause`` and ``Control.resume``."""
    ledger.connection.execute(statement("queues_set_paused"), {"name": queue, "paused": paused})
    ledger.event("paused" if paused else "resumed", queue=queue)
    ledger.rang |= not paused


def purge(ledger: Ledger, queue: str, limit: int) -> int:
    """See ``Control.purge``."""
    rows = [
        JobRow._make(row[:-1])
        for suspect in (0, 1)
        for row in ledger.connection.execute(statement("jobs_ready"), {"queue": queue, "suspect": suspect, "limit": limit})
    ]
    rows += map(JobRow._make, ledger.connection.execute(statement("jobs_delayed_in_queue"), {"queue": queue, "limit": limit}))
    purged = _cancel_rows(ledger, rows[:limit])
    if purged:
        ledger.event("purged", queue=queue, count=purged)
    return len(rows[:limit])


def _cancel_rows(ledger: Ledger, rows: Iterable[JobRow]) -> int:
    """Cancel waiting jobs; says how many. One that cannot be read becomes a dead letter instead."""
    cancelled = 0
    for row in rows:
        try:
            job = job_of(row)
        except ValueError as error:
            ledger.bury(row.number, row.state, bury(row, ledger.now, error))
            continue
        ledger.place(row.number, row.state, lifecycle.cancel(job, ledger.now), held_until_us=row.held_until_us)
        cancelled += 1
    return cancelled
