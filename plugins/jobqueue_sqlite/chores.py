"""Upkeep: promote what is due, take jobs from lost workers, forget what is past its time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

import attrs

from jobqueue_core import lifecycle
from jobqueue_core.broker import Reclaimed
from jobqueue_core.job import JobState

from .ledger import SLOT, Ledger
from .records import PRIORITIES, JobRow, as_json, bury, job_of
from .statements import statement
from .times import duration_us

if TYPE_CHECKING:
    from jobqueue_core.attempt import DeadLetter

__all__ = ["RATE_SLOTS", "TYPE_KEPT", "ClockWatch", "merge", "promote", "prune", "reclaim", "reclaim_worker"]

RATE_SLOTS: Final = 30
"""How many rows of ``rates`` make the last five minutes."""
WORKER_KEPT: Final = timedelta(hours=1)
TYPE_KEPT: Final = timedelta(days=1)
_JUMP: Final = 5.0
"""Seconds by which the wall clock and the monotonic one may come to differ between two looks."""


class ClockWatch:
    """Notices that the broker's clock has jumped: then the ends of leases mean nothing any more.

    Args:
        clock: The broker's clock.
        monotonic: A clock that never jumps; None to look for no jumps, as where a test moves the clock.
    """

    def __init__(self, clock: Callable[[], datetime], monotonic: Callable[[], float] | None) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._offset = self._measure()

    def jumped(self) -> bool:
        """Whether the clock has jumped since the last call."""
        offset = self._measure()
        jumped = abs(offset - self._offset) > _JUMP
        self._offset = offset
        return jumped

    def _measure(self) -> float:
        return 0.0 if self._monotonic is None else self._clock().timestamp() - self._monotonic()


def promote(ledger: Ledger, limit: int) -> int:
    """See ``Upkeep.promote``."""
    rows = ledger.connection.execute(statement("jobs_due"), {"now_us": ledger.now_us, "limit": limit}).fetchall()
    if not rows:
        return 0
    ready = ledger.take_numbers("ready", len(rows))
    ledger.connection.executemany(
        statement("jobs_promote"),
        [{"number": row[0], "ready": number, "now_us": ledger.now_us} for row, number in zip(rows, ready, strict=True)],
    )
    for _, queue, priority, state in rows:
        ledger.moved(queue, PRIORITIES[priority], JobState(state), JobState.QUEUED)
    ledger.rang = True
    return len(rows)


def reclaim(ledger: Ledger, limit: int, *, jumped: bool, max_crashes: int) -> Reclaimed:
    """See ``Upkeep.reclaim``; when the clock has *jumped*, every lease runs for its whole length from now instead."""
    if jumped:
        ledger.connection.execute(statement("jobs_extend_all"), {"now_us": ledger.now_us})
        return Reclaimed()
    rows = ledger.connection.execute(statement("jobs_lapsed"), {"now_us": ledger.now_us, "limit": limit})
    return _crash(ledger, map(JobRow._make, rows.fetchall()), started=None, error="its worker lost the lease", max_crashes=max_crashes)


def reclaim_worker(ledger: Ledger, worker_id: str, limit: int, *, started: Collection[str], error: str, max_crashes: int) -> tuple[Reclaimed, bool]:
    """See ``Upkeep.reclaim_worker``; takes up to *limit* jobs and says whether there may be more."""
    rows = ledger.connection.execute(statement("jobs_of_worker"), {"worker_id": worker_id, "limit": limit}).fetchall()
    ledger.connection.execute(statement("workers_leave"), {"id": worker_id})
    reclaimed = _crash(ledger, map(JobRow._make, rows), started=started, error=error, max_crashes=max_crashes)
    return reclaimed, len(rows) == limit


def prune(ledger: Ledger, limit: int) -> int:
    """See ``Upkeep.prune``."""
    connection, now_us = ledger.connection, ledger.now_us
    expired = _expire(ledger, limit)
    forgotten = [row[0] for row in connection.execute(statement("jobs_forget"), {"now_us": now_us, "limit": limit - expired}).fetchall()]
    if forgotten:
        connection.execute(statement("logs_forget"), {"ids": as_json(forgotten)})
    connection.execute(statement("unique_keys_lapse"), {"now_us": now_us})
    pruned = expired + len(forgotten)
    for name, bound in (
        ("unique_keys_forget", {"now_us": now_us}),
        ("idempotency_keys_forget", {"now_us": now_us}),
        ("rates_forget", {"slot": now_us // duration_us(SLOT) - RATE_SLOTS}),
        ("workers_forget", {"before_us": now_us - duration_us(WORKER_KEPT)}),
        ("types_forget", {"before_us": now_us - duration_us(TYPE_KEPT)}),
    ):
        pruned += connection.execute(statement(name), bound | {"limit": max(limit - pruned, 0)}).rowcount
    return pruned


def _expire(ledger: Ledger, limit: int) -> int:
    rows = [JobRow._make(row) for row in ledger.connection.execute(statement("jobs_expired"), {"now_us": ledger.now_us, "limit": limit})]
    ended = []
    for row in rows:
        try:
            job = job_of(row)
        except ValueError as error:
            letter = bury(row, ledger.now, error)
            ledger.bury(row.number, row.state, letter)
            ended.append(letter.job)
            continue
        ended.append(lifecycle.expire(job, ledger.now))
        ledger.place(row.number, row.state, ended[-1], held_until_us=row.held_until_us)
    ledger.tell("settled", ended)
    return len(rows)


def _crash(ledger: Ledger, rows: Iterable[JobRow], *, started: Collection[str] | None, error: str, max_crashes: int) -> Reclaimed:
    """Take jobs from their leases; *started* None means that nobody knows which handlers ran, so that all are counted."""
    tally: dict[Literal["requeued", "dead", "cancelled"], int] = {"requeued": 0, "dead": 0, "cancelled": 0}
    letters: list[DeadLetter] = []
    ended = []
    for row in rows:
        try:
            held = job_of(row)
        except ValueError as problem:
            letter = bury(row, ledger.now, problem)
            ledger.bury(row.number, row.state, letter)
            letters.append(letter)
            ended.append(letter.job)
            tally["dead"] += 1
            continue
        conclusion = lifecycle.crash(
            held,
            now=ledger.now,
            error=error,
            counted=started is None or row.id in started,
            cancel_requested=bool(row.cancel_requested),
            max_crashes=max_crashes,
        )
        ledger.conclude(row.number, conclusion, held_until_us=row.held_until_us)
        if conclusion.dead_letter is not None:
            letters.append(conclusion.dead_letter)
        tally[_fate(conclusion.job.state)] += 1
        ended.append(conclusion.job)
    ledger.tell("reclaimed", ended)
    return Reclaimed(requeued=tally["requeued"], dead=tally["dead"], cancelled=tally["cancelled"], dead_letters=tuple(letters))


def _fate(state: JobState) -> Literal["requeued", "dead", "cancelled"]:
    match state:
        case JobState.DEAD:
            return "dead"
        case JobState.CANCELLED:
            return "cancelled"
        case _:
            return "requeued"


def merge(left: Reclaimed, right: Reclaimed) -> Reclaimed:
    """Both together."""
    return attrs.evolve(
        left,
        requeued=left.requeued + right.requeued,
        dead=left.dead + right.dead,
        cancelled=left.cancelled + right.cancelled,
        dead_letters=left.dead_letters + right.dead_letters,
    )
