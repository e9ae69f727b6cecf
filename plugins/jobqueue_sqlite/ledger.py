"""What one transaction does to jobs, gathered while it is decided and then written in a few statements.

Everything that belongs to a transition is written here, so that no caller can forget a part: the job's row, its queue's counters and rates,
its unique key, its execution and dead letter in the outbox, and the event log.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jobqueue_core.job import Job, JobState, Priority, encode_job

from .statements import statement
from .times import duration_us, from_us, to_us

if TYPE_CHECKING:
    from jobqueue_core.attempt import DeadLetter, Execution
    from jobqueue_core.lifecycle import Conclusion

__all__ = ["MAX_EVENTS", "SLOT", "Ledger"]

MAX_EVENTS: Final = 10_000
"""How many events the log keeps."""
SLOT: Final = timedelta(seconds=10)
"""What one row of the table ``rates`` counts."""
_GIVEN_BACK: Final = 1 << 62
"""Taken from the ready number of a job given back, so that it goes before those never started."""
_COUNTERS: Final = (
    "critical", "high", "medium", "low", "processing", "scheduled", "retrying", "enqueued", "completed", "failed", "dead", "cancelled",
)  # fmt: skip
_RATES: Final = ("enqueued", "completed", "failed", "dead")

_encoder = msgspec.msgpack.Encoder()


class Ledger:
    """The work of one transaction on *connection*, at the broker's time *now_us*."""

    def __init__(self, connection: sqlite3.Connection, now_us: int, *, result_ttl: timedelta, max_pending: int) -> None:
        self.connection = connection
        self.now_us = now_us
        self.now: datetime = from_us(now_us)
        self.rang = False
        """True when a job has become available."""
        self._result_ttl_us = duration_us(result_ttl)
        self._max_pending = max_pending
        self._counts: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._placed: list[dict[str, Any]] = []
        self._inserted: list[dict[str, Any]] = []
        self._released: list[dict[str, Any]] = []
        self._executions: list[Execution] = []
        self._dead_letters: list[DeadLetter] = []
        self._events: list[tuple[str, dict[str, Any]]] = []
        self._listening: bool | None = None

    # What callers decide -----------------------------------------------------------------------------------------------------------------

    def count(self, queue: str, counter: str, by: int = 1) -> None:
        """Change a counter of *queue*."""
        self._counts[queue, counter] += by

    def insert(self, job: Job, *, held_until_us: int | None = None) -> None:
        """Store a new job."""
        self._inserted.append(self._row(job, front=False) | {"id": job.id, "type": job.type, "held_until_us": held_until_us})
        self.count(job.queue, _gauge(job.state, job.priority))

    def place(
        self, number: int, before: str, job: Job, *, front: bool = False, settled_no: int | None = None, held_until_us: int | None = None
    ) -> None:
        """Write *job* down after a transition.

        Args:
            number: The row.
            before: The state it was in.
            job: The job as it is now.
            front: Goes before those never started, if it is available now.
            settled_no: What settled or released it.
            held_until_us: Until when its record is needed even if it has finished.
        """
        row = self._row(job, front=front)
        forget_us = None
        if job.state.finished:
            forget_us = max(self.now_us + self._result_ttl_us, held_until_us or 0)
            self.count(job.queue, job.state.value)
            if job.unique_key is not None:
                self._released.append({"queue": job.queue, "key": job.unique_key, "job_id": job.id, "now_us": self.now_us})
        self._placed.append(row | {"number": number, "forget_us": forget_us, "settled_no": settled_no})
        self.moved(job.queue, job.priority, JobState(before), job.state)

    def moved(self, queue: str, priority: Priority, before: JobState, after: JobState) -> None:
        """Count a job from one state to another."""
        if not before.finished:
            self.count(queue, _gauge(before, priority), -1)
        if not after.finished:
            self.count(queue, _gauge(after, priority))

    def conclude(self, number: int, conclusion: Conclusion, *, settled_no: int | None = None, held_until_us: int | None = None) -> None:
        """Write down what the end of a run (or the loss of its worker) makes of a job that was processing."""
        job = conclusion.job
        self.place(number, JobState.PROCESSING, job, front=True, settled_no=settled_no, held_until_us=held_until_us)
        if job.state is JobState.RETRYING:
            self.count(job.queue, "failed")
        if conclusion.execution is not None:
            self._executions.append(conclusion.execution)
        if conclusion.dead_letter is not None:
            self._dead_letters.append(conclusion.dead_letter)

    def bury(self, number: int, before: str, letter: DeadLetter) -> None:
        """Make an undecodable job dead."""
        self.place(number, before, letter.job)
        self._dead_letters.append(letter)

    def listening(self) -> bool:
        """True when someone reads the event log; without, events need not be made."""
        if self._listening is None:
            self._listening = self.number("event_until_us") > self.now_us
        return self._listening

    def event(self, kind: str, **data: object) -> None:
        """Add to the event log, if someone reads it."""
        if self.listening():
            self._events.append((kind, data))

    def tell(self, kind: str, jobs: Sequence[Job]) -> None:
        """Add to the event log what has become of *jobs*, if there are any and someone reads it."""
        if jobs and self.listening():
            self.event(kind, jobs=[{"id": job.id, "type": job.type, "queue": job.queue, "state": job.state.value} for job in jobs])

    def number(self, name: str) -> int:
        """One of the database's numbers."""
        value: int = self.connection.execute(statement("numbers_get"), {"name": name}).fetchone()[0]
        return value

    def take_numbers(self, name: str, count: int) -> range:
        """The next *count* numbers of a sequence."""
        rows: list[tuple[int]] = self.connection.execute(statement("numbers_add"), {"name": name, "by": count}).fetchall()
        return range(rows[0][0] - count + 1, rows[0][0] + 1)

    # Writing -----------------------------------------------------------------------------------------------------------------------------

    def write(self) -> None:
        """Write everything gathered so far; more may be gathered afterwards."""
        self._number_ready()
        for name, rows in (("jobs_insert", self._inserted), ("jobs_place", self._placed), ("unique_keys_release", self._released)):
            if rows:
                self.connection.executemany(statement(name), rows)
                rows.clear()
        self._write_counts()
        self._write_outbox()
        self._write_events()

    def _row(self, job: Job, *, front: bool) -> dict[str, Any]:
        waiting = job.state is JobState.QUEUED
        delayed = job.state is JobState.SCHEDULED or job.state is JobState.RETRYING
        return {
            "queue": job.queue,
            "priority": job.priority.rank,
            "state": job.state.value,
            "record": encode_job(job),
            "deaths": job.deaths,
            "suspect": job.crashes > 0,
            "ready": -_GIVEN_BACK * front if waiting else None,
            "ready_since_us": self.now_us if waiting else None,
            "due_us": to_us(job.scheduled_at) if delayed else None,
            "expires_us": to_us(job.expires_at) if waiting or delayed else None,
        }

    def _number_ready(self) -> None:
        available = [row for rows in (self._inserted, self._placed) for row in rows if row["ready"] is not None]
        if available:
            self.rang = True
            for row, number in zip(available, self.take_numbers("ready", len(available)), strict=True):
                row["ready"] += number

    def _write_counts(self) -> None:
        if not self._counts:
            return
        slot = self.now_us // duration_us(SLOT)
        for queue in {queue for queue, _ in self._counts}:
            row: dict[str, Any] = {counter: self._counts.get((queue, counter), 0) for counter in _COUNTERS}
            self.connection.execute(statement("queues_add"), row | {"name": queue})
            if any(row[counter] for counter in _RATES):
                self.connection.execute(statement("rates_add"), {counter: row[counter] for counter in _RATES} | {"queue": queue, "slot": slot})
        self._counts.clear()

    def _write_outbox(self) -> None:
        if self._executions:
            self._send("outbox_history", self._executions)
            waiting = self.take_numbers("outbox_history", len(self._executions))[-1]
            self._executions.clear()
            if (surplus := waiting - self._max_pending) > 0:
                dropped = self.connection.execute(statement("outbox_history_drop"), {"surplus": surplus}).rowcount
                self.take_numbers("outbox_history", -dropped)
                self.take_numbers("outbox_dropped", dropped)
        if self._dead_letters:
            self._send("outbox_dead", self._dead_letters)
            self.take_numbers("outbox_dead", len(self._dead_letters))
            self._dead_letters.clear()

    def _send(self, outbox: str, entries: Sequence[Execution | DeadLetter]) -> None:
        rows = [{"at_us": self.now_us, "record": OUTBOX_FORMAT + _encoder.encode(entry)} for entry in entries]
        self.connection.executemany(statement(f"{outbox}_add"), rows)

    def _write_events(self) -> None:
        if not self._events:
            return
        numbers = self.take_numbers("event", len(self._events))
        rows = [
            {"number": number, "at_us": self.now_us, "kind": kind, "data": _encoder.encode(data)}
            for number, (kind, data) in zip(numbers, self._events, strict=True)
        ]
        self._events.clear()
        self.connection.executemany(statement("events_add"), rows)
        self.connection.execute(statement("events_trim"), {"last": numbers[-1] - MAX_EVENTS})


OUTBOX_FORMAT: Final = b"\x01"
"""The first byte of every outbox entry."""


def _gauge(state: JobState, priority: Priority) -> str:
    """The counter of the jobs in an unfinished state."""
    return priority.value if state is JobState.QUEUED else state.value
