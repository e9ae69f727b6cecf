"""Schedules and their ticks; whoever changes one says which version it has seen."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jobqueue_core.job import NewJob
from jobqueue_core.storage import Claim, Schedule, Tick

from .batches import by_size
from .statements import statement
from .texts import escaped, payload_columns, payload_of, unescaped

if TYPE_CHECKING:
    from .connections import Connection

__all__ = ["claim_ticks", "delete", "due", "everything", "get", "mark_sent", "put", "ticks", "unsent_ticks"]

_TICKS_KEPT: Final = 1_000
"""Of each schedule; those not sent are kept anyhow."""
_TRIM_EVERY: Final = 53
"""Every so many versions of a schedule its ticks are trimmed: to find the oldest that is kept takes longer than a claim. A prime number, so that
edits in step with the claims do not leave it out for ever."""
_FORMAT: Final = b"\x01"
"""The first byte of a tick's record: the number of its format."""

_log = logging.getLogger("jobqueue.storage")
_told: Final[set[str]] = set()
"""What has been logged of ticks that cannot be read."""

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
    if expected_version is None:
        return connection.execute(statement("schedules_insert"), _row(schedule) | {"version": schedule.version}).rowcount == 1
    return connection.execute(statement("schedules_update"), _row(schedule) | {"version": expected_version}).rowcount == 1


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


def claim_ticks(connection: Connection, claims: Sequence[Claim]) -> list[bool]:
    """See ``Schedules.claim_ticks``."""
    answers: list[bool] = []
    for rows in by_size([_claim_row(one) for one in claims], lambda row: len(row["record"] or b"")):
        bound = {name: [row[name] for row in rows] for name in rows[0]}
        won = {number for (number,) in connection.execute(statement("schedules_claim"), bound).fetchall()}
        answers += [number in won for number in range(1, len(rows) + 1)]
    moved = [one.schedule for one, is_won in zip(claims, answers, strict=True) if is_won]
    trimmed = [escaped(one.name) for one in moved if (one.version + 1) % _TRIM_EVERY == 0]
    if trimmed:
        connection.execute(statement("ticks_trim"), {"schedules": trimmed, "keep": _TICKS_KEPT})
    return answers


def unsent_ticks(connection: Connection, before: datetime, limit: int) -> list[Tick]:
    """See ``Schedules.unsent_ticks``."""
    return _ticks(connection, "ticks_unsent", {"before": before, "limit": limit})


def mark_sent(connection: Connection, ticks: Sequence[tuple[str, datetime]]) -> None:
    """See ``Schedules.mark_sent``."""
    bound = {"schedules": [escaped(schedule) for schedule, _due in ticks], "due_at": [due_at for _schedule, due_at in ticks]}
    connection.execute(statement("ticks_mark_sent"), bound)


def ticks(connection: Connection, schedule: str, limit: int) -> list[Tick]:
    """See ``Schedules.ticks``."""
    return _ticks(connection, "ticks_list", {"schedule": escaped(schedule), "limit": limit})


# Rows ----------------------------------------------------------------------------------------------------------------------------------


def _row(schedule: Schedule) -> dict[str, Any]:
    payload, payload_raw = payload_columns(schedule.payload_json)
    return {
        "name": escaped(schedule.name),
        "enabled": schedule.enabled,
        "paused": schedule.paused,
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
    payload, payload_raw, max_retries, timeout, enabled, paused, misfire_limit, jitter, start, end, next_run, last_run, version, *texts = row
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
        paused=paused,
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


def _claim_row(claim: Claim) -> dict[str, Any]:
    seen, tick = claim.schedule, claim.tick
    return {
        "name": escaped(seen.name),
        "version": seen.version,
        "seen": seen.next_run,
        "next_run": claim.next_run,
        "due_at": None if tick is None else tick.due,
        "claimed_at": None if tick is None else tick.claimed_at,
        "sent": None if tick is None else tick.sent,
        "job_id": None if tick is None else escaped(tick.job.id),
        "record": None if tick is None else _FORMAT + _encoder.encode(tick.job),
    }


def _ticks(connection: Connection, name: str, bound: dict[str, Any]) -> list[Tick]:
    """What can be read of a statement's rows: one that cannot must not keep the others from being sent."""
    found = []
    for schedule, due_at, record, claimed_at, sent in connection.execute(statement(name), bound, binary=True).fetchall():
        try:
            job = _frozen_job(record)
        except (ValueError, TypeError) as error:
            text = f"the tick of schedule {unescaped(schedule)!r} at {due_at.isoformat()} cannot be read, and is left out: {error}"
            if text not in _told:
                _told.add(text)
                _log.error(text)
            continue
        found.append(Tick(schedule=unescaped(schedule), due=due_at, job=job, claimed_at=claimed_at, sent=sent))
    return found


def _frozen_job(record: bytes) -> NewJob:
    if record[:1] != _FORMAT:
        msg = f"it has format {record[:1].hex() or 'none'}; this release reads {_FORMAT.hex()}: upgrade jobqueue"
        raise ValueError(msg)
    return _new_job.decode(record[1:])
