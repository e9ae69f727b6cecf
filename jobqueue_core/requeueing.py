"""Dead letter retries: storage first, then the broker, then storage again; and what a recorder makes of one that was left half done (DESIGN R20).

Whoever retries may be killed anywhere in between. Storage then says ``requeueing``, and since when; once that is longer ago than a request to the
broker may take, any recorder looks whether the job lives and settles the row.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal

from jobqueue_core.attempt import DeadLetter, ExecutionState
from jobqueue_core.broker import Requeued
from jobqueue_core.errors import IncompatibleData, StorageError
from jobqueue_core.job import Job, JobState

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from datetime import datetime

    from jobqueue_core.broker import Broker
    from jobqueue_core.storage import Storage

__all__ = ["REQUEUE_STEP", "RequeueOutcome", "requeue", "settle_overdue"]

RequeueOutcome = Requeued | Literal["not_open"]
"""An answer of ``Producer.requeue``, or that the dead letter was not open any more."""

REQUEUE_STEP: Final = 100
"""Dead letters at once: their payloads are in memory, and a step must end within :data:`_WINDOW`."""
_MOST_STEPS: Final = 20
_WINDOW: Final = timedelta(seconds=30)
"""How long after a retry has begun the broker still takes the job; afterwards what became of it is settled by looking."""
_REMEMBERED: Final = timedelta(minutes=1)
"""How long a broker knows a job after its end, at least: the least ``[job] result_ttl``."""
_DONE: Final = ("requeued", "already", "completed")
_ENDS: Final = (ExecutionState.COMPLETED, ExecutionState.CANCELLED)

_log = logging.getLogger("jobqueue.requeueing")

Key = tuple[str, int]


def requeue(broker: Broker, storage: Storage, jobs: Sequence[Job]) -> Generator[RequeueOutcome, None, None]:
    """Make dead jobs live again; yields what became of each, in order.

    What takes too long is begun anew: ``late`` is only the answer for a job that alone took longer than a retry may. Close the iterator (or let
    it end) for storage to hear what it has yielded; what was not sent by then is open again.

    Raises:
        BrokerError: The broker failed. Whether the job next in turn lives is found out by a recorder; those behind it are open again.
        StorageError: Storage did. What is not settled in it is settled by a recorder.
    """
    left = jobs
    while left:
        answered = yield from _in_time(broker, storage, left)
        left = left[answered:]


def _in_time(broker: Broker, storage: Storage, jobs: Sequence[Job]) -> Generator[RequeueOutcome, None, int]:
    """As many of *jobs* as can be requeued before it is too late, at least one; returns how many were answered for."""
    began = broker.now()
    keys = [(job.id, job.deaths) for job in jobs]
    ours = storage.begin_requeues(keys, now=began)
    done: list[Key] = []
    still_dead: list[Key] = []
    sent = answered = 0
    try:
        for job, key, is_ours in zip(jobs, keys, ours, strict=True):
            sent += 1
            outcome = broker.requeue(job, not_after=began + _WINDOW) if is_ours else "not_open"
            if outcome == "late" and answered:
                break
            answered += 1
            if is_ours:
                (done if outcome in _DONE else still_dead).append(key)
            yield outcome
    except BaseException:
        # What was sent last may have arrived: a recorder finds out. What was not sent is open again, if storage answers.
        with suppress(StorageError, IncompatibleData):
            _finish(storage, done, still_dead + _chosen(keys, ours, sent), now=began)
        raise
    _finish(storage, done, still_dead + _chosen(keys, ours, answered), now=began)
    return answered


def _chosen(keys: Sequence[Key], ours: Sequence[bool], start: int) -> list[Key]:
    return [key for key, is_ours in zip(keys[start:], ours[start:], strict=True) if is_ours]


def _finish(storage: Storage, done: Sequence[Key], still_dead: Sequence[Key], *, now: datetime) -> None:
    if done:
        storage.finish_requeues(done, now=now, requeued=True)
    if still_dead:
        storage.finish_requeues(still_dead, now=now, requeued=False)


# What was left half done ---------------------------------------------------------------------------------------------------------------


def settle_overdue(broker: Broker, storage: Storage) -> bool:
    """Settle retries that were begun more than half a minute ago and not finished.

    Returns:
        False when some must wait: the broker does not know their jobs, and what has become of them may still be on its way to storage.
    """
    for _ in range(_MOST_STEPS):
        # Asked first: it bounds what is settled to retries that the broker takes no more, also if somebody begins one anew meanwhile.
        now = broker.now()
        letters = storage.stale_requeues(now - _WINDOW, REQUEUE_STEP)
        if not letters:
            return True
        recorded_until = now - broker.outbox_lag().oldest_age
        jobs = broker.get([letter.job.id for letter in letters])
        is_recorded = broker.now() - recorded_until < _REMEMBERED
        known = [(letter, job) for letter, job in zip(letters, jobs, strict=True) if job is not None or is_recorded]
        happened = {(letter.job.id, letter.job.deaths): _has_happened(storage, letter, job) for letter, job in known}
        _finish(storage, [key for key, has in happened.items() if has], [key for key, has in happened.items() if not has], now=now)
        for (job_id, death), requeued in happened.items():
            fields = {"job_id": job_id, "death": death, "requeued": requeued}
            _log.warning("finished a dead letter retry that was left half done", extra={"fields": fields})
        if len(known) < len(letters):
            return False
        if len(letters) < REQUEUE_STEP:
            return True
    return True


def _has_happened(storage: Storage, letter: DeadLetter, job: Job | None) -> bool:
    """Whether the broker took the job back; False also when it did and has lost it, with its data, before the job had ended."""
    if job is not None:
        return job.state is not JobState.DEAD or job.deaths != letter.job.deaths
    # Never taken back, or ended and forgotten: then there is a later death, or a later run after which nothing was to come.
    latest = storage.dead_letter(letter.job.id)
    if latest is not None and latest.job.deaths > letter.job.deaths:
        return True
    return any(run.run > letter.job.run and run.state in _ENDS for run in storage.job_executions(letter.job.id))
