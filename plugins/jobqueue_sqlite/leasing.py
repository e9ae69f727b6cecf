"""Handing jobs out, and everything that happens to a job under its lease."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

import attrs
import msgspec
from msgspec.structs import replace

from jobqueue_core import lifecycle
from jobqueue_core.attempt import Lease, LogLine, Release, Report, Settlement
from jobqueue_core.broker import Renewal
from jobqueue_core.job import Job, Progress
from jobqueue_core.printable import printable, writable

from .records import JobRow, as_json, bury, job_of
from .statements import statement
from .times import duration_us

if TYPE_CHECKING:
    from .ledger import Ledger

__all__ = ["Taking", "has_work", "release", "renew", "report", "settle", "take"]

_MAX_LINES: Final = 1_000
_ROUNDS: Final = 4
"""How often one transaction looks again when what it found had expired or could not be read."""
_EXTRA: Final = 200
"""How many more it then looks at."""

_encoder = msgspec.msgpack.Encoder()
_progress = msgspec.msgpack.Decoder(Progress)


# Lease ---------------------------------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Taking:
    """What a worker asks for."""

    queues: tuple[str, ...]
    limit: int
    worker_id: str
    lease_for: timedelta
    suspects: int


def has_work(connection: sqlite3.Connection, queues: Sequence[str]) -> bool:
    """Whether a job waits in one of *queues*; reads counters only, and takes no lock."""
    return next(iter(_open_queues(connection, queues)), None) is not None


def take(ledger: Ledger, wanted: Taking) -> tuple[list[Lease], bool]:
    """See ``Consumer.lease``; takes what there is and does not wait.

    Returns:
        The leases, and whether to call again at once: so many jobs had expired, or could not be read, that they were put away in steps.
    """
    leases: list[Lease] = []
    suspects = wanted.suspects
    lease_no: int | None = None
    rounds = 0
    for queue in list(_open_queues(ledger.connection, wanted.queues)):
        while (room := wanted.limit - len(leases)) > 0:
            if rounds == _ROUNDS:
                return leases, True
            rows = _candidates(ledger.connection, queue, room + (_EXTRA if rounds else 0), suspects)
            if not rows:
                break
            if lease_no is None:
                lease_no = ledger.take_numbers("lease", 1)[0]
            taken, unfit = _take_rows(ledger, rows, room, wanted, lease_no)
            leases += taken
            suspects -= sum(lease.job.crashes > 0 for lease in taken)
            ledger.write()
            if not unfit:
                break
            rounds += 1
    return leases, False


def _open_queues(connection: sqlite3.Connection, queues: Sequence[str]) -> Iterable[str]:
    named = {"queues": as_json(queues)}
    for (name,) in connection.execute(statement("queues_open_named"), named).fetchall():
        yield name
    if "*" in queues:
        for (name,) in connection.execute(statement("queues_open_others"), named).fetchall():
            yield name


def _candidates(connection: sqlite3.Connection, queue: str, limit: int, suspects: int) -> list[JobRow]:
    rows = connection.execute(statement("jobs_ready"), {"queue": queue, "suspect": 0, "limit": limit}).fetchall()
    if suspects > 0:
        crashed = connection.execute(statement("jobs_ready"), {"queue": queue, "suspect": 1, "limit": min(limit, suspects)}).fetchall()
        if crashed:
            rows = sorted(rows + crashed, key=_urgency)[:limit]
    return [JobRow._make(row[:-1]) for row in rows]


def _urgency(row: tuple[int, ...]) -> tuple[int, int]:
    return row[JobRow._fields.index("priority")], row[-1]


def _take_rows(ledger: Ledger, rows: Sequence[JobRow], room: int, wanted: Taking, lease_no: int) -> tuple[list[Lease], bool]:
    """Lease up to *room* of *rows*; also says whether some were put away instead."""
    leases: list[Lease] = []
    numbers = []
    unfit: list[Job] = []
    for row in rows:
        if len(leases) == room:
            break
        try:
            job = job_of(row)
        except ValueError as error:
            letter = bury(row, ledger.now, error)
            ledger.bury(row.number, row.state, letter)
            unfit.append(letter.job)
            continue
        if row.expires_us is not None and row.expires_us <= ledger.now_us:
            unfit.append(lifecycle.expire(job, ledger.now))
            ledger.place(row.number, row.state, unfit[-1], held_until_us=row.held_until_us)
            continue
        begun = lifecycle.begin(job, wanted.worker_id, ledger.now)
        ledger.moved(job.queue, job.priority, job.state, begun.state)
        leases.append(Lease(begun, f"{row.number}-{lease_no}"))
        numbers.append(row.number)
    if numbers:
        lease_us = duration_us(wanted.lease_for)
        ledger.connection.execute(
            statement("jobs_take"),
            {
                "numbers": as_json(numbers),
                "lease_no": lease_no,
                "lease_until_us": ledger.now_us + lease_us,
                "lease_us": lease_us,
                "worker_id": wanted.worker_id,
                "started_us": ledger.now_us,
            },
        )
    ledger.tell("settled", unfit)
    return leases, bool(unfit)


# Tokens --------------------------------------------------------------------------------------------------------------------------------


class _Token(NamedTuple):
    """A lease's name: the job's row and the number of the call that leased it. A row is leased once a call."""

    number: int
    lease_no: int


def _token(text: str) -> _Token:
    number, _, lease_no = text.partition("-")
    try:
        return _Token(int(number), int(lease_no))
    except ValueError:
        # Not ours: a token of another broker names no lease here.
        return _Token(-1, -1)


class _Held(NamedTuple):
    """A row of ``jobs_held``."""

    number: int
    queue: str
    priority: int
    state: str
    lease_no: int | None
    settled_no: int | None
    cancel_requested: int
    progress: bytes | None
    held_until_us: int | None


def _held(connection: sqlite3.Connection, tokens: Iterable[_Token]) -> dict[int, _Held]:
    rows = connection.execute(statement("jobs_held"), {"numbers": as_json({token.number for token in tokens})})
    return {row.number: row for row in map(_Held._make, rows)}


# Under the lease -----------------------------------------------------------------------------------------------------------------------


def renew(ledger: Ledger, tokens: Sequence[str], *, lease_for: timedelta) -> Renewal:
    """See ``Consumer.renew``."""
    lost, cancelled = set(), set()
    lease_us = duration_us(lease_for)
    for text in tokens:
        token = _token(text)
        wanted = {"lease_until_us": ledger.now_us + lease_us, "lease_us": lease_us, "number": token.number, "lease_no": token.lease_no}
        rows = ledger.connection.execute(statement("jobs_renew"), wanted).fetchall()
        if not rows:
            lost.add(text)
        elif rows[0][0]:
            cancelled.add(text)
    return Renewal(lost=frozenset(lost), cancel_requested=frozenset(cancelled))


def settle(ledger: Ledger, settlements: Sequence[Settlement]) -> list[bool]:
    """See ``Consumer.settle``."""
    tokens = [_token(one.lease.token) for one in settlements]
    held = _held(ledger.connection, tokens)
    answers = []
    ended = []
    for one, token in zip(settlements, tokens, strict=True):
        row = held.get(token.number)
        if row is None or row.lease_no != token.lease_no:
            answers.append(row is not None and row.settled_no == token.lease_no)
            continue
        conclusion = lifecycle.conclude(
            _with_progress(one.lease.job, row),
            writable(one.outcome),
            now=ledger.now,
            duration=one.duration,
            cancel_requested=bool(row.cancel_requested),
            max_retries=one.max_retries,
        )
        ledger.conclude(row.number, conclusion, settled_no=token.lease_no, held_until_us=row.held_until_us)
        held[row.number] = row._replace(lease_no=None, settled_no=token.lease_no)
        ended.append(conclusion.job)
        answers.append(True)
    ledger.tell("settled", ended)
    return answers


def release(ledger: Ledger, releases: Sequence[Release]) -> list[bool]:
    """See ``Consumer.release``."""
    tokens = [_token(one.lease.token) for one in releases]
    held = _held(ledger.connection, tokens)
    answers = []
    for one, token in zip(releases, tokens, strict=True):
        row = held.get(token.number)
        if row is None or row.lease_no != token.lease_no:
            answers.append(row is not None and row.settled_no == -token.lease_no)
            continue
        change = lifecycle.park if one.unknown_type else lifecycle.give_back
        job = change(one.lease.job, now=ledger.now, delay=one.delay, cancel_requested=bool(row.cancel_requested))
        ledger.place(row.number, row.state, job, front=True, settled_no=-token.lease_no, held_until_us=row.held_until_us)
        held[row.number] = row._replace(lease_no=None, settled_no=-token.lease_no)
        answers.append(True)
    return answers


def report(ledger: Ledger, reports: Sequence[Report]) -> None:
    """See ``Consumer.report``."""
    for one in reports:
        token = _token(one.lease.token)
        progress = None if one.progress is None else _encoder.encode(_readable(one.progress))
        found = ledger.connection.execute(
            statement("jobs_report"), {"progress": progress, "number": token.number, "lease_no": token.lease_no}
        ).fetchall()
        if not found or not one.lines:
            continue
        job_id = found[0][0]
        lines = [_encoder.encode(LogLine(line.at, line.run, line.level, printable(line.message))) for line in one.lines[-_MAX_LINES:]]
        ledger.connection.executemany(statement("logs_add"), [{"job_id": job_id, "record": line} for line in lines])
        ledger.connection.execute(statement("logs_trim"), {"job_id": job_id, "keep": _MAX_LINES})


def _with_progress(job: Job, row: _Held) -> Job:
    return job if row.progress is None else replace(job, progress=_progress.decode(row.progress))


def _readable(progress: Progress) -> Progress:
    return progress if progress.message is None else Progress(progress.fraction, printable(progress.message))
