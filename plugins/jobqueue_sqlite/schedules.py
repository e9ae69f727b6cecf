"""Schedules and their ticks; whoever changes one says which version it has seen."""

from __future__ import annotations

import sqlite3
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from jobqueue_core.storage import Schedule, Tick

from .statements import statement
from .times import to_us

__all__ = ["claim_tick", "delete", "due", "everything", "get", "mark_sent", "put", "ticks", "unsent_ticks"]

_TICKS_KEPT: Final = 1_000
"""Of each schedule; those not sent are kept anyhow."""

_encoder = msgspec.msgpack.Encoder()
_schedule = msgspec.msgpack.Decoder(Schedule)
_tick = msgspec.msgpack.Decoder(Tick)


def everything(connection: sqlite3.Connection) -> list[Schedule]:
    """See ``Schedules.schedules``."""
    return [_read(row) for row in connection.execute(statement("schedules_list")).fetchall()]


def get(connection: sqlite3.Connection, name: str) -> Schedule | None:
    """See ``Schedules.schedule``."""
    row = connection.execute(statement("schedules_get"), {"name": name}).fetchone()
    return None if row is None else _read(row)


def put(connection: sqlite3.Connection, schedule: Schedule, *, expected_version: int | None) -> bool:
    """See ``Schedules.put_schedule``."""
    name = "schedules_insert" if expected_version is None else "schedules_update"
    return connection.execute(statement(name), _row(schedule) | {"version": expected_version}).rowcount == 1


def delete(connection: sqlite3.Connection, name: str) -> bool:
    """See ``Schedules.delete_schedule``. Ticks that were claimed and not sent stay: they are to become jobs."""
    connection.execute(statement("ticks_forget"), {"schedule": name})
    return connection.execute(statement("schedules_delete"), {"name": name}).rowcount == 1


def due(connection: sqlite3.Connection, now: datetime, limit: int) -> list[Schedule]:
    """See ``Schedules.due_schedules``."""
    return [_read(row) for row in connection.execute(statement("schedules_due"), {"now_us": to_us(now), "limit": limit}).fetchall()]


def claim_tick(connection: sqlite3.Connection, seen: Schedule, tick: Tick | None, *, next_run: datetime | None) -> bool:
    """See ``Schedules.claim_tick``; what was written before it answers False must be rolled back."""
    moved = replace(seen, next_run=next_run)
    if tick is not None:
        moved = replace(moved, last_run=tick.due, last_job_id=tick.job.id)
    bound = _row(moved) | {"version": seen.version, "seen_us": to_us(seen.next_run)}
    if connection.execute(statement("schedules_advance"), bound).rowcount != 1:
        return False
    if tick is None:
        return True
    row = {
        "schedule": tick.schedule,
        "due_us": to_us(tick.due),
        "claimed_us": to_us(tick.claimed_at),
        "sent": tick.sent,
        "record": _encoder.encode(tick),
    }
    if connection.execute(statement("ticks_add"), row).rowcount != 1:
        return False
    connection.execute(statement("ticks_trim"), {"schedule": tick.schedule, "keep": _TICKS_KEPT})
    return True


def unsent_ticks(connection: sqlite3.Connection, before: datetime, limit: int) -> list[Tick]:
    """See ``Schedules``."""
    return [_read_tick(row) for row in connection.execute(statement("ticks_unsent"), {"before_us": to_us(before), "limit": limit}).fetchall()]


def mark_sent(connection: sqlite3.Connection, schedule: str, due_at: datetime) -> None:
    """See ``Schedules``."""
    connection.execute(statement("ticks_mark_sent"), {"schedule": schedule, "due_us": to_us(due_at)})


def ticks(connection: sqlite3.Connection, schedule: str, limit: int) -> list[Tick]:
    """See ``Schedules``."""
    return [_read_tick(row) for row in connection.execute(statement("ticks_list"), {"schedule": schedule, "limit": limit}).fetchall()]


def _row(schedule: Schedule) -> dict[str, Any]:
    return {
        "name": schedule.name,
        "enabled": schedule.enabled,
        "next_run_us": to_us(schedule.next_run),
        "record": _encoder.encode(schedule),
    }


def _read(row: tuple[bytes, int]) -> Schedule:
    return replace(_schedule.decode(row[0]), version=row[1])


def _read_tick(row: tuple[bytes, int]) -> Tick:
    return replace(_tick.decode(row[0]), sent=bool(row[1]))
