"""Schedules and their ticks; whoever changes one says which version it has seen."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

import msgspec
from msgspec.structs import replace

from jobqueue_core.errors import IncompatibleData
from jobqueue_core.storage import Claim, Schedule, Tick

from .statements import statement
from .times import to_us

__all__ = ["claim_ticks", "delete", "due", "everything", "get", "mark_sent", "put", "ticks", "unsent_ticks"]

_TICKS_KEPT: Final = 1_000
"""Of each schedule; those not sent are kept anyhow."""
_TRIM_EVERY: Final = 53
"""Every so many versions of a schedule its ticks are trimmed: to find the oldest that is kept takes longer than a claim. A prime number, so that
edits in step with the claims do not leave it out for ever."""

_log = logging.getLogger("jobqueue.storage")
_told: Final[set[str]] = set()
"""What has been logged of damaged rows."""

_encoder = msgspec.msgpack.Encoder()
_schedule = msgspec.msgpack.Decoder(Schedule)
_tick = msgspec.msgpack.Decoder(Tick)


def everything(connection: sqlite3.Connection) -> list[Schedule]:
    """See ``Schedules.schedules``."""
    return _readable(_read, connection.execute(statement("schedules_list")).fetchall())


def get(connection: sqlite3.Connection, name: str) -> Schedule | None:
    """See ``Schedules.schedule``."""
    row = connection.execute(statement("schedules_get"), {"name": name}).fetchone()
    return None if row is None else _read(row)


def put(connection: sqlite3.Connection, schedule: Schedule, *, expected_version: int | None) -> bool:
    """See ``Schedules.put_schedule``."""
    if expected_version is None:
        return connection.execute(statement("schedules_insert"), _row(schedule) | {"version": schedule.version}).rowcount == 1
    return connection.execute(statement("schedules_update"), _row(schedule) | {"version": expected_version}).rowcount == 1


def delete(connection: sqlite3.Connection, name: str) -> bool:
    """See ``Schedules.delete_schedule``. Ticks that were claimed and not sent stay: they are to become jobs."""
    connection.execute(statement("ticks_forget"), {"schedule": name})
    return connection.execute(statement("schedules_delete"), {"name": name}).rowcount == 1


def due(connection: sqlite3.Connection, now: datetime, limit: int) -> list[Schedule]:
    """See ``Schedules.due_schedules``."""
    return _readable(_read, connection.execute(statement("schedules_due"), {"now_us": to_us(now), "limit": limit}).fetchall())


def claim_ticks(connection: sqlite3.Connection, claims: Sequence[Claim]) -> list[bool]:
    """See ``Schedules.claim_ticks``."""
    return [_claim(connection, one) for one in claims]


def _claim(connection: sqlite3.Connection, claim: Claim) -> bool:
    seen, tick = claim.schedule, claim.tick
    moved = replace(seen, next_run=claim.next_run)
    if tick is not None:
        moved = replace(moved, last_run=tick.due, last_job_id=tick.job.id)
    bound = _row(moved) | {"version": seen.version, "seen_us": to_us(seen.next_run), "due_us": None if tick is None else to_us(tick.due)}
    if connection.execute(statement("schedules_advance"), bound).rowcount != 1:
        return False
    if tick is not None:
        row = {
            "schedule": seen.name,
            "due_us": to_us(tick.due),
            "claimed_us": to_us(tick.claimed_at),
            "sent": tick.sent,
            "record": _encoder.encode(tick),
        }
        connection.execute(statement("ticks_add"), row)
    if (seen.version + 1) % _TRIM_EVERY == 0:
        connection.execute(statement("ticks_trim"), {"schedule": seen.name, "keep": _TICKS_KEPT})
    return True


def unsent_ticks(connection: sqlite3.Connection, before: datetime, limit: int) -> list[Tick]:
    """See ``Schedules``."""
    return _readable(_read_tick, connection.execute(statement("ticks_unsent"), {"before_us": to_us(before), "limit": limit}).fetchall())


def mark_sent(connection: sqlite3.Connection, ticks: Sequence[tuple[str, datetime]]) -> None:
    """See ``Schedules``."""
    connection.executemany(statement("ticks_mark_sent"), [{"schedule": schedule, "due_us": to_us(due_at)} for schedule, due_at in ticks])


def ticks(connection: sqlite3.Connection, schedule: str, limit: int) -> list[Tick]:
    """See ``Schedules``."""
    return _readable(_read_tick, connection.execute(statement("ticks_list"), {"schedule": schedule, "limit": limit}).fetchall())


def _row(schedule: Schedule) -> dict[str, Any]:
    return {
        "name": schedule.name,
        "enabled": schedule.fires,
        "next_run_us": to_us(schedule.next_run),
        "record": _encoder.encode(schedule),
    }


_Row = tuple[bytes, int, str]
"""The record, the version (of a tick: whether it was sent), and the schedule's name."""
_T = TypeVar("_T")


def _readable(read: Callable[[_Row], _T], rows: Iterable[_Row]) -> list[_T]:
    """What can be read of *rows*: a damaged one must not keep the others from firing."""
    found = []
    for row in rows:
        try:
            found.append(read(row))
        except IncompatibleData as error:
            if str(error) not in _told:
                _told.add(str(error))
                _log.error("%s; it is left out", error)
    return found


def _read(row: _Row) -> Schedule:
    record, version, name = row
    try:
        return replace(_schedule.decode(record), version=version)
    except (msgspec.DecodeError, TypeError) as error:
        msg = f"the record of schedule {name!r} cannot be read: {error}"
        raise IncompatibleData(msg) from error


def _read_tick(row: _Row) -> Tick:
    record, sent, name = row
    try:
        return replace(_tick.decode(record), sent=bool(sent))
    except (msgspec.DecodeError, TypeError) as error:
        msg = f"the record of a tick of schedule {name!r} cannot be read: {error}"
        raise IncompatibleData(msg) from error
