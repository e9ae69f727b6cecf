"""Answers to questions; nothing here writes."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import msgspec

from jobqueue_core.attempt import LogLine
from jobqueue_core.broker import WORKER_SHOWN, JobFilter, JobPage, QueueStats, TypeInfo, WorkerInfo
from jobqueue_core.errors import InvalidJob
from jobqueue_core.job import Job, check_job_id

from .chores import RATE_SLOTS, TYPE_KEPT
from .ledger import SLOT
from .records import PRIORITIES, JobRow, rows_by_id, show
from .statements import statement
from .times import duration_us, from_us

__all__ = ["get", "jobs", "logs", "queues", "types", "workers"]

_EXAMINED: Final = 10_000
_AFTER_ALL: Final = "~"
"""Sorts after every id."""

_log_line = msgspec.msgpack.Decoder(LogLine)
_worker = msgspec.msgpack.Decoder(WorkerInfo)
_type = msgspec.msgpack.Decoder(TypeInfo)


def get(connection: sqlite3.Connection, job_ids: Sequence[str], now_us: int) -> list[Job | None]:
    """See ``Inspection.get``."""
    now = from_us(now_us)
    rows = rows_by_id(connection, job_ids)
    return [show(rows[job_id], now) if job_id in rows else None for job_id in job_ids]


def jobs(connection: sqlite3.Connection, wanted: JobFilter, now_us: int, *, cursor: str | None, limit: int) -> JobPage:
    """See ``Inspection.jobs``."""
    before = _AFTER_ALL if cursor is None else _check_cursor(cursor)
    end = connection.execute(statement("jobs_page_end"), {"before": before, "examined": _EXAMINED}).fetchone()
    floor = None if end is None else end[0]
    bound: dict[str, Any] = {
        "before": before,
        "floor": floor or "",
        "state": None if wanted.state is None else wanted.state.value,
        "type": wanted.type,
        "queue": wanted.queue,
        "limit": limit,
    }
    rows = [JobRow._make(row) for row in connection.execute(statement("jobs_page"), bound).fetchall()]
    now = from_us(now_us)
    return JobPage(jobs=tuple(show(row, now) for row in rows), next=rows[-1].id if len(rows) == limit else floor)


def _check_cursor(cursor: str) -> str:
    try:
        return check_job_id(cursor, "cursor")
    except InvalidJob as error:
        raise InvalidJob("cursor", f"{cursor!r:.60} is not a cursor of this list") from error


def queues(connection: sqlite3.Connection, name: str | None, now_us: int) -> list[QueueStats]:
    """See ``Inspection.queues``; all, or the one called *name*."""
    slot = now_us // duration_us(SLOT) - RATE_SLOTS + 1
    rows = connection.execute(statement("queues_list" if name is None else "queues_one"), {"name": name, "slot": slot}).fetchall()
    return [_stats(connection, row, now_us) for row in rows]


def _stats(connection: sqlite3.Connection, row: Sequence[Any], now_us: int) -> QueueStats:
    name, paused, *counts = row
    depth, (processing, scheduled, retrying, enqueued, completed, failed, dead, cancelled), recent = counts[:4], counts[4:12], counts[12:]
    oldest_us = connection.execute(statement("jobs_oldest_ready"), {"queue": name}).fetchone()[0] if any(depth) else None
    seconds = (SLOT * RATE_SLOTS).total_seconds()
    return QueueStats(
        name=name,
        paused=bool(paused),
        depth=dict(zip(PRIORITIES, depth, strict=True)),
        processing=processing,
        scheduled=scheduled,
        retrying=retrying,
        oldest_age=None if oldest_us is None else timedelta(microseconds=max(now_us - oldest_us, 0)),
        completed=completed,
        failed=failed,
        dead=dead,
        cancelled=cancelled,
        enqueued=enqueued,
        rates={kind: count / seconds for kind, count in zip(("enqueued", "completed", "failed", "dead"), recent, strict=True)},
    )


def workers(connection: sqlite3.Connection, now_us: int) -> list[WorkerInfo]:
    """See ``Inspection.workers``."""
    rows = connection.execute(statement("workers_list"), {"since_us": now_us - duration_us(WORKER_SHOWN)}).fetchall()
    found = [msgspec.structs.replace(_worker.decode(record), last_beat=from_us(beat_us)) for beat_us, record in rows]
    return sorted(found, key=lambda worker: (worker.started_at, worker.id))


def types(connection: sqlite3.Connection, now_us: int) -> list[TypeInfo]:
    """See ``Inspection.types``."""
    rows = connection.execute(statement("types_list"), {"since_us": now_us - duration_us(TYPE_KEPT)}).fetchall()
    return [msgspec.structs.replace(_type.decode(record), last_seen=from_us(seen_us)) for seen_us, record in rows]


def logs(connection: sqlite3.Connection, job_id: str) -> list[LogLine]:
    """See ``Inspection.logs``."""
    return [_log_line.decode(record) for (record,) in connection.execute(statement("logs_of_job"), {"job_id": job_id}).fetchall()]
