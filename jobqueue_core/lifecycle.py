"""The state machine: what each event makes of a job. Pure functions, shared by every broker, so that all of them agree.

Each takes the job before and the broker's time, and returns the job after. A broker stores what comes back; the rules are here.
"""

from __future__ import annotations

import os
import random
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, assert_never

import msgspec
from msgspec.structs import replace

from jobqueue_core.attempt import (
    MAX_ERROR,
    Cancelled,
    Completed,
    Crashed,
    Dead,
    DeadLetter,
    Execution,
    ExecutionState,
    Outcome,
    Retrying,
    Returned,
    Snoozed,
)
from jobqueue_core.fingerprint import error_fingerprint
from jobqueue_core.job import DeadReason, Job, JobState, NewJob

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TRANSITIONS", "Conclusion", "accept", "begin", "cancel", "conclude", "crash", "expire", "give_back", "park", "requeue"]

_S = JobState
TRANSITIONS: Final[Mapping[JobState, frozenset[JobState]]] = {
    _S.SCHEDULED: frozenset({_S.QUEUED, _S.PROCESSING, _S.CANCELLED}),
    _S.QUEUED: frozenset({_S.PROCESSING, _S.CANCELLED}),
    _S.PROCESSING: frozenset({_S.COMPLETED, _S.RETRYING, _S.SCHEDULED, _S.DEAD, _S.CANCELLED, _S.QUEUED}),
    _S.RETRYING: frozenset({_S.QUEUED, _S.PROCESSING, _S.CANCELLED}),
    _S.COMPLETED: frozenset(),
    _S.DEAD: frozenset({_S.QUEUED}),
    _S.CANCELLED: frozenset(),
}
"""Which state may follow which. A due job may be leased straight from ``scheduled`` or ``retrying``, before upkeep has promoted it."""

_MILLISECOND: Final = timedelta(milliseconds=1)
_random: Final = random.Random()  # noqa: S311 - it names runs and guards nothing; os.urandom (uuid4) lets other threads in at each call
os.register_at_fork(after_in_child=_random.seed)


class Conclusion(msgspec.Struct, frozen=True, kw_only=True):
    """What a run's end makes of a job, and what is to be remembered of it. Stored in one atomic step."""

    job: Job
    execution: Execution | None = None
    dead_letter: DeadLetter | None = None


def accept(new: NewJob, now: datetime) -> Job:
    """The job that *new* becomes when the broker takes it at *now*: scheduled when its time lies ahead, else queued."""
    scheduled_at = new.scheduled_at if new.delay is None else now + new.delay
    waits = scheduled_at is not None and scheduled_at > now
    return Job(
        id=new.id,
        type=new.type,
        payload_json=new.payload_json,
        queue=new.queue,
        priority=new.priority,
        state=JobState.SCHEDULED if waits else JobState.QUEUED,
        created_at=now,
        scheduled_at=scheduled_at,
        expires_at=new.expires_at if new.expires_in is None else now + new.expires_in,
        max_retries=new.max_retries,
        timeout=new.timeout,
        metadata=new.metadata,
        headers=new.headers,
        unique_key=new.unique_key,
        unique_for=new.unique_for,
    )


def begin(job: Job, worker_id: str, now: datetime) -> Job:
    """The job under a new lease: processing, with the number of the run that the lease is for."""
    return replace(job, state=JobState.PROCESSING, run=job.run + 1, worker_id=worker_id, started_at=now, progress=None, cancel_requested=False)


def conclude(job: Job, outcome: Outcome, *, now: datetime, duration: timedelta, cancel_requested: bool, max_retries: int) -> Conclusion:
    """What the end of a run makes of *job*.

    A run that was asked to stop and ends in any way but completion cancels its job: never another run (DESIGN R12).

    Args:
        job: The job as leased; ``job.run`` is the run that ended.
        outcome: How the run ended.
        now: The broker's time.
        duration: How long the handler ran.
        cancel_requested: Whether someone had asked for this job to be cancelled, by the broker's own record.
        max_retries: What counted for this run.
    """
    if cancel_requested and not isinstance(outcome, (Completed, Cancelled)):
        outcome = Cancelled()
    ran = replace(job, unknown_since=None, cancel_requested=False)
    letter = None
    match outcome:
        case Completed():
            state = ExecutionState.COMPLETED
            error = None
            after = replace(ran, state=JobState.COMPLETED, completed_at=now, result_json=outcome.result_json)
        case Retrying():
            state, error = ExecutionState.FAILED, outcome.error[:MAX_ERROR]
            after = replace(
                ran,
                state=JobState.RETRYING,
                scheduled_at=now + outcome.delay,
                retry_count=job.retry_count + 1,
                retry_delay=outcome.delay,
                last_error=error,
            )
        case Snoozed():
            state, error = ExecutionState.SNOOZED, outcome.error and outcome.error[:MAX_ERROR]
            after = replace(ran, state=JobState.SCHEDULED, scheduled_at=now + outcome.delay, last_error=error or job.last_error)
        case Dead():
            state, error = ExecutionState.DEAD, outcome.error[:MAX_ERROR]
            after = _die(ran, outcome.reason, error, now)
            letter = _dead_letter(after, now, error, outcome.traceback)
        case Cancelled():
            state, error = ExecutionState.CANCELLED, outcome.error[:MAX_ERROR]
            after = replace(ran, state=JobState.CANCELLED, completed_at=now, last_error=error)
        case Returned():
            state, error = ExecutionState.RETURNED, outcome.error[:MAX_ERROR]
            after = replace(ran, state=JobState.QUEUED)
        case Crashed():
            state, error = ExecutionState.LOST, outcome.error[:MAX_ERROR]
            after = _count_crash(ran, error, now, outcome.max_crashes)
            letter = _dead_letter(after, now, error, None) if after.state is JobState.DEAD else None
        case _:
            assert_never(outcome)
    execution = _execution(job, state, now, error=error, duration=duration, max_retries=max_retries, after=after)
    return Conclusion(job=after, execution=execution, dead_letter=letter)


def crash(job: Job, *, now: datetime, error: str, counted: bool, cancel_requested: bool, max_crashes: int) -> Conclusion:
    """What the loss of its worker makes of *job*, which was held under a lease.

    The run number is spent either way: whether the handler had begun cannot always be known, and (job, run) must stay unique.

    Args:
        job: The job as leased.
        now: The broker's time.
        error: How the worker was lost.
        counted: Count a crash and record a ``lost`` run. False when a supervisor knows that the handler was not running.
        cancel_requested: As for :func:`conclude`.
        max_crashes: A job that has crashed so often is dead.
    """
    error = error[:MAX_ERROR]
    held = replace(job, cancel_requested=False, progress=None)
    after = _count_crash(held, error, now, max_crashes) if counted else replace(held, state=JobState.QUEUED)
    if cancel_requested:
        after = replace(held, state=JobState.CANCELLED, completed_at=now, last_error="cancelled", crashes=after.crashes)
    letter = _dead_letter(after, now, error, None) if after.state is JobState.DEAD else None
    execution = None
    if counted:
        duration = timedelta(0) if job.started_at is None else max(now - job.started_at, timedelta(0))
        execution = _execution(job, ExecutionState.LOST, now, error=error, duration=duration, max_retries=job.max_retries, after=after)
    return Conclusion(job=after, execution=execution, dead_letter=letter)


def give_back(job: Job, *, now: datetime, delay: timedelta, cancel_requested: bool) -> Job:
    """The job when a worker gives it back without having started it: the run is not counted; with a delay it waits as ``scheduled``."""
    before = replace(job, run=job.run - 1, cancel_requested=False)
    if cancel_requested:
        return replace(before, state=JobState.CANCELLED, completed_at=now, last_error="cancelled")
    if delay:
        return replace(before, state=JobState.SCHEDULED, scheduled_at=now + delay)
    return replace(before, state=JobState.QUEUED)


def park(job: Job, *, now: datetime, delay: timedelta, cancel_requested: bool) -> Job:
    """The job when a worker gives it back because no handler serves its type."""
    after = give_back(job, now=now, delay=delay, cancel_requested=cancel_requested)
    return after if after.state.finished else replace(after, unknown_since=job.unknown_since or now)


def cancel(job: Job, now: datetime) -> Job:
    """A waiting, scheduled or retrying job, cancelled at once."""
    return replace(job, state=JobState.CANCELLED, completed_at=now, last_error="cancelled")


def expire(job: Job, now: datetime) -> Job:
    """A waiting job whose ``expires_at`` has passed before a run started."""
    return replace(job, state=JobState.CANCELLED, completed_at=now, last_error="expired")


def requeue(dead: Job, now: datetime) -> Job:
    """A dead job that is tried again: queued, with its retries and crashes forgotten; run and deaths go on counting."""
    return replace(
        dead,
        state=JobState.QUEUED,
        scheduled_at=None,
        completed_at=None,
        expires_at=None,
        retry_count=0,
        retry_delay=None,
        crashes=0,
        dead_reason=None,
        progress=None,
        cancel_requested=False,
        unknown_since=None,
        archived=False,
        created_at=min(dead.created_at, now),
    )


def _count_crash(job: Job, error: str, now: datetime, max_crashes: int) -> Job:
    crashed = replace(job, crashes=job.crashes + 1, last_error=error)
    if crashed.crashes >= max_crashes:
        return _die(crashed, DeadReason.WORKER_LOST, error, now)
    return replace(crashed, state=JobState.QUEUED)


def _die(job: Job, reason: DeadReason, error: str, now: datetime) -> Job:
    return replace(job, state=JobState.DEAD, completed_at=now, deaths=job.deaths + 1, dead_reason=reason, last_error=error)


def _dead_letter(job: Job, now: datetime, error: str, traceback: str | None) -> DeadLetter:
    return DeadLetter(job=job, died_at=now, error=error, traceback=traceback, fingerprint=error_fingerprint(job.type, error, traceback))


def _execution(
    job: Job,
    state: ExecutionState,
    now: datetime,
    *,
    error: str | None,
    duration: timedelta,
    max_retries: int | None,
    after: Job,
) -> Execution:
    # Half of it by position: of a call with more than 15 keywords Python makes a dictionary, which takes longer than all else here.
    return Execution(
        execution_id(),
        job.id,
        job.run,
        job.attempt,
        job.type,
        job.queue,
        job.priority,
        state,
        now,
        job.started_at,
        duration_ms=duration / _MILLISECOND,
        error=error,
        worker_id=job.worker_id,
        created_at=job.created_at,
        scheduled_at=job.scheduled_at,
        max_retries=max_retries,
        crashes=after.crashes,
        deaths=after.deaths,
        dead_reason=after.dead_reason,
        metadata=job.metadata,
    )


def execution_id() -> str:
    """A UUID for one run (RFC 9562, version 4)."""
    digits = _random.randbytes(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"
