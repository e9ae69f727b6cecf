"""Factories for tests: each makes one plain, valid thing, and takes by name what a test wants to be different."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from jobqueue_core.attempt import (
    Cancelled,
    Completed,
    Dead,
    DeadLetter,
    Execution,
    ExecutionState,
    Lease,
    LogLine,
    Outcome,
    Release,
    Report,
    Retrying,
    Returned,
    Settlement,
    Snoozed,
)
from jobqueue_core.broker import TypeInfo, WorkerInfo
from jobqueue_core.fingerprint import error_fingerprint
from jobqueue_core.job import DeadReason, Job, JobState, NewJob, Priority, new_job_id
from jobqueue_core.storage import Claim, Schedule, Tick

__all__ = [
    "NOON",
    "cancelled",
    "claim",
    "completed",
    "dead_job",
    "dead_letter",
    "died",
    "execution",
    "failed",
    "log_line",
    "new_job",
    "new_jobs",
    "release",
    "report",
    "returned",
    "schedule",
    "settlement",
    "snoozed",
    "tampered",
    "tick",
    "type_info",
    "worker_info",
]

NOON: Final = datetime(2030, 1, 1, 12, 0, tzinfo=UTC)
"""When things happen unless told otherwise: a whole minute, on the first day of a year."""


# Jobs ----------------------------------------------------------------------------------------------------------------------------------


def new_job(**options: Any) -> NewJob:
    """A job to enqueue; *options* are fields of ``NewJob``."""
    queue = options.get("queue", "default")
    return NewJob(**{"id": new_job_id(queue), "type": "test.job", "payload_json": b"{}", **options})


def new_jobs(count: int, **options: Any) -> list[NewJob]:
    """*count* jobs that differ in their ids."""
    return [new_job(**options) for _ in range(count)]


def dead_job(**fields: Any) -> Job:
    """A job that has died once; *fields* are fields of ``Job``."""
    died_at = fields.pop("died_at", NOON)
    defaults = {
        "id": str(uuid.uuid4()),
        "type": "test.job",
        "payload_json": b"{}",
        "queue": "default",
        "priority": Priority.MEDIUM,
        "state": JobState.DEAD,
        "created_at": died_at - timedelta(seconds=10),
        "started_at": died_at - timedelta(seconds=1),
        "completed_at": died_at,
        "max_retries": 3,
        "retry_count": 3,
        "run": 4,
        "deaths": 1,
        "last_error": "ValueError: no",
        "dead_reason": DeadReason.RETRIES_EXHAUSTED,
        "worker_id": "worker-1",
    }
    return Job(**{**defaults, **fields})


# Ends of runs --------------------------------------------------------------------------------------------------------------------------


def settlement(lease: Lease, outcome: Outcome, *, max_retries: int = 3, duration: timedelta = timedelta(milliseconds=25)) -> Settlement:
    """*outcome* on its way to the broker."""
    return Settlement(lease=lease, outcome=outcome, max_retries=max_retries, duration=duration)


def completed(lease: Lease, result_json: bytes | None = None) -> Settlement:
    """The handler returned."""
    return settlement(lease, Completed(result_json=result_json))


def failed(lease: Lease, *, delay: timedelta = timedelta(seconds=1), error: str = "ValueError: no", traceback: str | None = None) -> Settlement:
    """The run failed and is tried again."""
    return settlement(lease, Retrying(delay=delay, error=error, traceback=traceback))


def died(
    lease: Lease, *, reason: DeadReason = DeadReason.RETRIES_EXHAUSTED, error: str = "ValueError: no", traceback: str | None = None
) -> Settlement:
    """The job will not be tried again by itself."""
    return settlement(lease, Dead(reason=reason, error=error, traceback=traceback))


def snoozed(lease: Lease, *, delay: timedelta = timedelta(seconds=1)) -> Settlement:
    """The handler put the job off."""
    return settlement(lease, Snoozed(delay=delay))


def returned(lease: Lease) -> Settlement:
    """The run was cut off by a shutdown."""
    return settlement(lease, Returned())


def cancelled(lease: Lease) -> Settlement:
    """The run was stopped because someone asked for it."""
    return settlement(lease, Cancelled())


def release(lease: Lease, *, delay: timedelta = timedelta(0), unknown_type: bool = False) -> Release:
    """A job given back whose handler was not started."""
    return Release(lease=lease, delay=delay, unknown_type=unknown_type)


def log_line(message: str, *, run: int = 1, level: str = "info", at: datetime = NOON) -> LogLine:
    """One line that a handler logged."""
    return LogLine(at=at, run=run, level=level, message=message)


def report(lease: Lease, *, progress: object = None, lines: Sequence[LogLine] = ()) -> Report:
    """What a running job says of itself."""
    return Report(lease=lease, progress=progress, lines=tuple(lines))


# What is remembered --------------------------------------------------------------------------------------------------------------------


def execution(**fields: Any) -> Execution:
    """The record of one run; *fields* are fields of ``Execution``."""
    finished_at = fields.get("finished_at", NOON)
    defaults = {
        "id": str(uuid.uuid4()),
        "job_id": str(uuid.uuid4()),
        "run": 1,
        "attempt": 1,
        "type": "test.job",
        "queue": "default",
        "priority": Priority.MEDIUM,
        "state": ExecutionState.COMPLETED,
        "finished_at": finished_at,
        "started_at": finished_at - timedelta(milliseconds=25),
        "duration_ms": 25.0,
        "worker_id": "worker-1",
        "created_at": finished_at - timedelta(seconds=5),
        "max_retries": 3,
    }
    return Execution(**{**defaults, **fields})


def dead_letter(*, died_at: datetime = NOON, error: str = "ValueError: no", traceback: str | None = None, **job_fields: Any) -> DeadLetter:
    """One death; *job_fields* are fields of the ``Job`` that died."""
    job = dead_job(died_at=died_at, last_error=error, **job_fields)
    return DeadLetter(job=job, died_at=died_at, error=error, traceback=traceback, fingerprint=error_fingerprint(job.type, error, traceback))


def tampered(cursor: str) -> list[str]:
    """*cursor* as a curious client might change it."""
    digits = cursor.translate(str.maketrans("0123456789", "9876543210"))
    return [
        cursor[:-1],
        cursor[1:],
        cursor + "x",
        cursor + "\u0000",
        cursor[::-1],
        cursor.upper(),
        digits,
        cursor * 50,
        f"{cursor}~{cursor}",
        "9" * 40 + cursor,
    ]


# Workers -------------------------------------------------------------------------------------------------------------------------------


def type_info(name: str = "test.job", **fields: Any) -> TypeInfo:
    """A type that a worker serves."""
    return TypeInfo(**{"type": name, "queue": "default", "priority": Priority.MEDIUM, **fields})


def worker_info(worker_id: str = "worker-1", **fields: Any) -> WorkerInfo:
    """A worker that lives."""
    defaults = {
        "id": worker_id,
        "name": "mill",
        "host": "example",
        "pid": 4711,
        "version": "1.0",
        "queues": ("critical", "default"),
        "concurrency": 10,
        "lease": timedelta(seconds=30),
        "started_at": NOON,
    }
    return WorkerInfo(**{**defaults, **fields})


# Schedules -----------------------------------------------------------------------------------------------------------------------------


def schedule(name: str = "nightly", **fields: Any) -> Schedule:
    """A cron line."""
    return Schedule(**{"name": name, "expression": "0 3 * * *", "type": "test.job", "payload_json": b"{}", "version": 1, **fields})


def tick(of: Schedule, *, due: datetime, claimed_at: datetime | None = None, **job_options: Any) -> Tick:
    """One claimed moment of the schedule *of*."""
    job = new_job(type=of.type, payload_json=of.payload_json, scheduled_at=due, metadata={"jobqueue.schedule": of.name}, **job_options)
    return Tick(schedule=of.name, due=due, job=job, claimed_at=due if claimed_at is None else claimed_at)


def claim(seen: Schedule, *, next_run: timedelta = timedelta(hours=1)) -> Claim:
    """A wish to fire the schedule *seen*, which is due, and to move it on by *next_run*."""
    if seen.next_run is None:
        msg = f"schedule {seen.name!r} is never due: make a Claim with a tick of your own"
        raise ValueError(msg)
    return Claim(schedule=seen, tick=tick(seen, due=seen.next_run), next_run=seen.next_run + next_run)
