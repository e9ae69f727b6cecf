"""Schedules and their ticks; whoever changes one says which version it has seen."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec.structs import replace

from jobqueue_core.errors import IncompatibleData
from jobqueue_core.job import NewJob
from jobqueue_core.storage import Schedule, Tick

from .statements import statement
from .texts import escaped, payload_columns, payload_of, unescaped

if TYPE_CHECKING:
    from .connections import Connection

if TYPE_CHECKING:
    from .connections import Connection

__all__ = ["claim_tick", "delete", "due", "everything", "get", "mark_sent", "put", "ticks", "unsent_ticks"]

_TICKS_KEPT: Final = 1_000
"""Of each schedule; those not sent are kept anyhow."""
_FORMAT: Final = b"\x01"
"""The first byte of a tick's record: the number of its format."""

_encoder = msgspec.msgpack.Encoder()
_new_job = msgspec.msgpack.Decoder(NewJob)


# Schedules -----------------------------------------------------------------------------------------------------------------------------


def everything(connection: Connection) -> list[Schedule]:
    """See ``Schedules.schedules``."""
    return _schedules(connection, "schedules_list", {})


def get(connection: Connection, name: str) -> Schedule | None:
    """See ``Schedules.schedule``."""
    found = _schedules(connection, "schedules_get", {"name": escaped(name)})
    return found[0] if found else None


def put(connection: Connection, schedule: Schedule, *, expected_version: int | None) -> bool:
    """See ``Schedules.put_schedule``."""
    name = "schedules_insert" if expected_version is None else "schedules_update"
    return connection.execute(statement(name), _row(schedule) | {"version": expected_version}).rowcount == 1


def delete(connection: Connection, name: str) -> bool:
    """See ``Schedules.delete_schedule``. Ticks that were claimed and not sent stay: they are to become jobs."""
    # In the order of a claim, so that the two wait for each other in one direction only.
    deleted = connection.execute(statement("schedules_delete"), {"name": escaped(name)}).rowcount == 1
    connection.execute(statement("ticks_forget"), {"schedule": escaped(name)})
    return deleted


def due(connection: Connection, now: datetime, limit: int) -> list[Schedule]:
    """See ``Schedules.due_schedules``."""
    return _schedules(connection, "schedules_due", {"now": now, "limit": limit})


# Ticks ---------------------------------------------------------------------------------------------------------------------------------


def claim_tick(connection: Connection, seen: Schedule, tick: Tick | None, *, next_run: datetime | None) -> bool:
    """See ``Schedules.claim_tick``; what was written before it answers False must be rolled back."""
    moved = replace(seen, next_run=next_run)
    if tick is not None:
        moved = replace(moved, last_run=tick.due, last_job_id=tick.job.id)
    bound = {
        "name": escaped(seen.name),
        "version": seen.version,
        "seen": seen.next_run,
        "next_run": moved.next_run,
        "last_run": moved.last_run,
        "last_job_id": escaped(moved.last_job_id),
    }
    if connection.execute(statement("schedules_advance"), bound).rowcount != 1:
        return False
    if tick is None:
        return True
    row = {
        "schedule": escaped(tick.schedule),
        "due_at": tick.due,
        "claimed_at": tick.claimed_at,
        "sent": tick.sent,
        "job_id": escaped(tick.job.id),
        "record": _FORMAT + _encoder.encode(tick.job),
    }
    if connection.execute(statement("ticks_add"), row).rowcount != 1:
        return False
    connection.execute(statement("ticks_trim"), {"schedule": escaped(tick.schedule), "keep": _TICKS_KEPT})
    return True


def unsent_ticks(connection: Connection, before: datetime, limit: int) -> list[Tick]:
    """See ``Schedules.unsent_ticks``."""
    return _ticks(connection, "ticks_unsent", {"before": before, "limit": limit})


def mark_sent(connection: Connection, schedule: str, due_at: datetime) -> None:
    """See ``Schedules.mark_sent``."""
    connection.execute(statement("ticks_mark_sent"), {"schedule": escaped(schedule), "due_at": due_at})


def ticks(connection: Connection, schedule: str, limit: int) -> list[Tick]:
    """See ``Schedules.ticks``."""
    return _ticks(connection, "ticks_list", {"schedule": escaped(schedule), "limit": limit})


# Rows ----------------------------------------------------------------------------------------------------------------------------------


def _row(schedule: Schedule) -> dict[str, Any]:
    payload, payload_raw = payload_columns(schedule.payload_json)
    return {
        "name": escaped(schedule.name),
        "enabled": schedule.enabled,
        "next_run": schedule.next_run,
        "expression": escaped(schedule.expression),
        "timezone": escaped(schedule.timezone),
        "type": escaped(schedule.type),
        "payload": payload,
        "payload_raw": payload_raw,
        "queue": escaped(schedule.queue),
        "priority": escaped(schedule.priority),
        "max_retries": schedule.max_retries,
        "timeout": schedule.timeout,
        "misfire": escaped(schedule.misfire),
        "misfire_limit": schedule.misfire_limit,
        "overlap": escaped(schedule.overlap),
        "jitter": schedule.jitter,
        "starts_at": schedule.start,
        "ends_at": schedule.end,
        "source": escaped(schedule.source),
        "last_run": schedule.last_run,
        "last_job_id": escaped(schedule.last_job_id),
    }


def _schedules(connection: Connection, name: str, bound: dict[str, Any]) -> list[Schedule]:
    text = statement(name).replace("/*columns*/", statement("schedules_columns"))
    # Binary: an interval as text has the shape that a setting of the server gives it.
    return [_schedule(row) for row in connection.execute(text, bound, binary=True).fetchall()]


def _schedule(row: tuple[Any, ...]) -> Schedule:
    payload, payload_raw, max_retries, timeout, enabled, misfire_limit, jitter, start, end, next_run, last_run, version, *texts = row
    name, expression, job_type, timezone, queue, priority, misfire, overlap, source, last_job_id = map(unescaped, texts)
    return Schedule(
        name=name,
        expression=expression,
        type=job_type,
        payload_json=payload_of(payload, payload_raw),
        timezone=timezone,
        queue=queue,
        priority=priority,
        max_retries=max_retries,
        timeout=timeout,
        enabled=enabled,
        misfire=misfire,
        misfire_limit=misfire_limit,
        overlap=overlap,
        jitter=jitter,
        start=start,
        end=end,
        source=source,
        next_run=next_run,
        last_run=last_run,
        last_job_id=last_job_id,
        version=version,
    )


def _ticks(connection: Connection, name: str, bound: dict[str, Any]) -> list[Tick]:
    return [
        Tick(schedule=unescaped(schedule), due=due_at, job=_frozen_job(record), claimed_at=claimed_at, sent=sent)
        for schedule, due_at, record, claimed_at, sent in connection.execute(statement(name), bound, binary=True).fetchall()
    ]


def _frozen_job(record: bytes) -> NewJob:
    if record[:1] != _FORMAT:
        raise IncompatibleData(f"a tick has format {record[:1].hex() or 'none'}; this release reads {_FORMAT.hex()}: upgrade jobqueue")
    return _new_job.decode(record[1:])
