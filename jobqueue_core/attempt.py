"""One run of a job: the lease it runs under, the outcome it ends in, and what is remembered of it.

Outcomes are attrs classes in a closed union; what is written down and read back in bulk (executions, dead letters) are msgspec structs.
"""

from __future__ import annotations

import enum
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import attrs
import msgspec

from jobqueue_core.job import DeadReason, Job, Priority, rfc3339
from jobqueue_core.payload import shown_json

if TYPE_CHECKING:
    from jobqueue_core.objects import DeadLetterObject, ExecutionObject, LogLineObject

__all__ = [
    "MAX_ERROR",
    "MAX_TRACEBACK",
    "Cancelled",
    "Completed",
    "Crashed",
    "Dead",
    "DeadLetter",
    "DeadLetterState",
    "Execution",
    "ExecutionState",
    "Lease",
    "LogLine",
    "Outcome",
    "Release",
    "Report",
    "Retrying",
    "Returned",
    "Settlement",
    "Snoozed",
]

MAX_ERROR: Final = 2_000
"""Characters kept of an error's text."""
MAX_TRACEBACK: Final = 16_000
"""Characters kept of a traceback: its end."""


class Lease(msgspec.Struct, frozen=True):
    """A worker's exclusive right to one job until it settles, releases or loses it.

    *job* is in state processing, and ``job.run`` is already the number of the run this lease is for. *token* names this lease and no other;
    only the broker that made it knows what is in it.
    """

    job: Job
    token: str


# Outcomes ------------------------------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Completed:
    """The handler returned; *result_json* is what, as JSON."""

    result_json: bytes | None = None


@attrs.frozen(kw_only=True)
class Retrying:
    """The run failed and the job is tried again after *delay*. Spends an attempt."""

    delay: timedelta
    error: str
    traceback: str | None = None


@attrs.frozen(kw_only=True)
class Snoozed:
    """The handler put the job off for *delay*, or it could not be started; *error* says why then. Spends no attempt."""

    delay: timedelta
    error: str | None = None


@attrs.frozen(kw_only=True)
class Dead:
    """The job will not be tried again by itself."""

    reason: DeadReason
    error: str
    traceback: str | None = None


@attrs.frozen(kw_only=True)
class Cancelled:
    """The run was stopped because someone asked for it."""

    error: str = "cancelled"


@attrs.frozen(kw_only=True)
class Returned:
    """The run was cut off by a shutdown; the job is due again at once. Spends no attempt."""

    error: str = "returned by a worker that was stopping"


@attrs.frozen(kw_only=True)
class Crashed:
    """The process that ran the handler died under it, and the worker did not.

    Counts a crash instead of an attempt; the job is due again at once, or dead as ``worker_lost`` when it has crashed *max_crashes* times.
    """

    error: str
    max_crashes: int


Outcome = Completed | Retrying | Snoozed | Dead | Cancelled | Returned | Crashed
"""How a run ended. Matched in two places only: ``lifecycle.conclude`` and ``settlement``."""


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """An outcome on its way to the broker."""

    lease: Lease
    outcome: Outcome
    max_retries: int
    """What counted for this run, after decorator and defaults were filled in."""
    duration: timedelta
    """How long the handler ran, by the worker's monotonic clock."""


@attrs.frozen(kw_only=True)
class Release:
    """A job given back whose handler was not started: no run is counted, no execution recorded.

    With *unknown_type* the job waits *delay* as ``scheduled`` because no handler serves its type (``Job.unknown_since`` is set if it was not);
    without it the job is due after *delay*, and with a delay of zero it goes before those that were never started.
    """

    lease: Lease
    delay: timedelta = timedelta(0)
    unknown_type: bool = False


class LogLine(msgspec.Struct, frozen=True, array_like=True):
    """One line that a handler logged through ``ctx.logger``."""

    at: datetime
    run: int
    level: str
    message: str

    def to_dict(self) -> LogLineObject:
        """The line as the REST API and ``--json`` show it."""
        return {"at": rfc3339(self.at), "run": self.run, "level": self.level, "message": self.message}


@attrs.frozen(kw_only=True)
class Report:
    """What a running job says of itself: its latest progress, and lines to add to its log."""

    lease: Lease
    progress: Any = None
    """A ``Progress``, or None when it has not changed."""
    lines: tuple[LogLine, ...] = ()


# What is remembered --------------------------------------------------------------------------------------------------------------------


class ExecutionState(enum.StrEnum):
    """How one run ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    """It will be retried."""
    DEAD = "dead"
    CANCELLED = "cancelled"
    SNOOZED = "snoozed"
    RETURNED = "returned"
    LOST = "lost"
    """Its worker lost the lease, or the handler's own process died."""


class Execution(msgspec.Struct, frozen=True, array_like=True):
    """The record of one run. Its *id* is a UUID made for that run, so that recording it twice changes nothing.

    It carries enough of its job to answer for it after the broker's record has gone. New fields are added at the end, with a default.
    """

    id: str
    job_id: str
    run: int
    attempt: int
    type: str
    queue: str
    priority: Priority
    state: ExecutionState
    finished_at: datetime
    started_at: datetime | None = None
    duration_ms: float = 0.0
    error: str | None = None
    worker_id: str | None = None
    created_at: datetime | None = None
    scheduled_at: datetime | None = None
    max_retries: int | None = None
    crashes: int = 0
    deaths: int = 0
    dead_reason: DeadReason | None = None
    metadata: dict[str, str] = {}

    def to_dict(self) -> ExecutionObject:
        """The execution as the REST API, MCP and ``--json`` show it."""
        return {
            "id": self.id,
            "job_id": self.job_id,
            "run": self.run,
            "attempt": self.attempt,
            "type": self.type,
            "queue": self.queue,
            "priority": self.priority,
            "state": self.state,
            "error": self.error,
            "worker_id": self.worker_id,
            "started_at": rfc3339(self.started_at),
            "finished_at": rfc3339(self.finished_at),
            "duration_ms": round(self.duration_ms, 3),
            "scheduled_at": rfc3339(self.scheduled_at),
            "metadata": self.metadata,
        }


class DeadLetterState(enum.StrEnum):
    """What has become of a dead letter."""

    OPEN = "open"
    REQUEUEING = "requeueing"
    """A retry has begun; any recorder finishes it if whoever began it does not."""
    REQUEUED = "requeued"
    DISCARDED = "discarded"


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One death of one job: unique by (``job.id``, ``job.deaths``). *job* is the job as it died."""

    job: Job
    died_at: datetime
    error: str
    traceback: str | None = None
    fingerprint: str = ""
    """Groups deaths by what went wrong: see ``fingerprint.py``."""
    raw: bytes | None = None
    """For an undecodable entry: the bytes that were found."""
    state: DeadLetterState = DeadLetterState.OPEN
    requeued_at: datetime | None = None
    requeue_count: int = 0

    def to_dict(self) -> DeadLetterObject:
        """The dead letter as the REST API, MCP and ``--json`` show it."""
        job = self.job
        return {
            "job_id": job.id,
            "death": job.deaths,
            "type": job.type,
            "queue": job.queue,
            "priority": job.priority,
            "payload": shown_json(job.payload_json),
            "error": self.error,
            "traceback": self.traceback,
            "fingerprint": self.fingerprint,
            "dead_reason": job.dead_reason,
            "state": self.state,
            "attempts": job.attempt,
            "run": job.run,
            "max_retries": job.max_retries,
            "metadata": job.metadata,
            "created_at": rfc3339(job.created_at),
            "started_at": rfc3339(job.started_at),
            "died_at": rfc3339(self.died_at),
            "requeued_at": rfc3339(self.requeued_at),
            "requeue_count": self.requeue_count,
            "raw_bytes": None if self.raw is None else len(self.raw),
        }
