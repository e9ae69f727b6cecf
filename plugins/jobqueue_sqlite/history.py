"""Executions, and what they add up to."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from jobqueue_core.attempt import Execution, ExecutionState
from jobqueue_core.broker import split_cursor
from jobqueue_core.errors import InvalidJob
from jobqueue_core.histogram import Histogram
from jobqueue_core.storage import ExecutionFilter, ExecutionPage, ExecutionStatistics, RecordPolicy, TypeStatistics

from .filters import filtered
from .records import as_json
from .statements import statement
from .times import duration_us, to_us

__all__ = ["executions", "job_executions", "prune", "record", "statistics"]

_STATES: Final = tuple(state.value for state in ExecutionState)
_TIMED: Final = frozenset({ExecutionState.COMPLETED, ExecutionState.FAILED, ExecutionState.DEAD})
"""The runs whose durations count."""
_COUNTED_KEPT: Final = timedelta(days=1)
_COUNTED_LATEST: Final = 100_000
_FORGET_STEP: Final = 10_000
_MINUTE_US: Final = 60_000_000

_encoder = msgspec.msgpack.Encoder()
_execution = msgspec.msgpack.Decoder(Execution)
_buckets = msgspec.msgpack.Decoder(dict[int, int])


def record(connection: sqlite3.Connection, found: Sequence[Execution], *, policy: RecordPolicy) -> None:
    """See ``History.record_executions``."""
    new = _unknown(connection, found)
    if not new:
        return
    stored = [one for one in new if _is_row(one, policy)]
    connection.executemany(statement("executions_add"), [_row(one) for one in stored])
    unstored = [(one.id, to_us(one.finished_at)) for one in new if not _is_row(one, policy)]
    if unstored:
        connection.executemany(statement("counted_add"), [{"id": execution_id, "finished_us": finished_us} for execution_id, finished_us in unstored])
        latest_us = max(finished_us for _, finished_us in unstored)
        old = {"before_us": latest_us - duration_us(_COUNTED_KEPT), "keep": _COUNTED_LATEST, "limit": _FORGET_STEP}
        connection.execute(statement("counted_forget"), old)
    _roll_up(connection, new)


def _unknown(connection: sqlite3.Connection, found: Iterable[Execution]) -> list[Execution]:
    by_id = {one.id: one for one in found}
    wanted = as_json([to_us(one.finished_at), one.id] for one in by_id.values())
    known = {job_id for (job_id,) in connection.execute(statement("executions_known"), {"ids": wanted}).fetchall()}
    return [one for one in by_id.values() if one.id not in known]


def _is_row(execution: Execution, policy: RecordPolicy) -> bool:
    match policy:
        case "all":
            return True
        case "failures":
            return execution.state is not ExecutionState.COMPLETED
        case "none":
            return False


def _row(execution: Execution) -> dict[str, Any]:
    return {
        "finished_us": to_us(execution.finished_at),
        "id": execution.id,
        "job_id": execution.job_id,
        "run": execution.run,
        "type": execution.type,
        "queue": execution.queue,
        "state": execution.state.value,
        "record": _encoder.encode(execution),
    }


def _roll_up(connection: sqlite3.Connection, new: Sequence[Execution]) -> None:
    groups: defaultdict[tuple[int, str], list[Execution]] = defaultdict(list)
    for one in new:
        groups[to_us(one.finished_at) // _MINUTE_US, one.type].append(one)
    for (minute, job_type), group in groups.items():
        key = {"minute": minute, "type": job_type}
        known = connection.execute(statement("rollups_get"), key).fetchone()
        histogram = Histogram(None if known is None else _buckets.decode(known[0]))
        counts = dict.fromkeys(_STATES, 0)
        for one in group:
            counts[one.state.value] += 1
            if one.state in _TIMED:
                histogram.add(one.duration_ms)
        # A histogram made of stored buckets starts its sum at zero: what it has now is what this group adds.
        row = key | counts | {"duration_ms": histogram.total_ms, "histogram": _encoder.encode(histogram.buckets)}
        connection.execute(statement("rollups_add"), row)


def executions(connection: sqlite3.Connection, wanted: ExecutionFilter, *, cursor: str | None, offset: int, limit: int) -> ExecutionPage:
    """See ``History.executions``."""
    after_us, after_id = (None, None) if cursor is None else _cursor(cursor)
    conditions = {
        "type": wanted.type,
        "queue": wanted.queue,
        "state": None if wanted.state is None else wanted.state.value,
        "finished_since_us": to_us(wanted.since),
        "finished_until_us": to_us(wanted.until),
        "after_execution": after_id,
    }
    bound = conditions | {"after_us": after_us, "after_id": after_id, "limit": limit + 1, "offset": offset}
    rows = connection.execute(filtered("executions_list", conditions), bound).fetchall()
    page = rows[:limit]
    following = f"{page[-1][0]}~{page[-1][1]}" if len(rows) > limit else None
    return ExecutionPage(executions=tuple(_execution.decode(row[2]) for row in page), next=following)


def _cursor(cursor: str) -> tuple[int, str]:
    instant, execution_id = split_cursor(cursor, 2)
    if not instant.isascii() or not instant.isdigit() or len(instant) > 18:
        raise InvalidJob("cursor", f"{cursor!r:.60} is not a cursor of this list")
    return int(instant), execution_id


def job_executions(connection: sqlite3.Connection, job_id: str) -> list[Execution]:
    """See ``History.job_executions``."""
    return [_execution.decode(row[0]) for row in connection.execute(statement("executions_of_job"), {"job_id": job_id}).fetchall()]


class _Sum:
    """Rollups added together."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(_STATES, 0)
        self.histogram = Histogram()

    def add(self, counts: Mapping[str, int], histogram: Histogram) -> None:
        for state, count in counts.items():
            self.counts[state] += count
        self.histogram.merge([histogram])

    def statistics(self) -> TypeStatistics:
        return TypeStatistics(
            total=sum(self.counts.values()),
            **self.counts,
            avg_duration_ms=self.histogram.mean_ms,
            p50_duration_ms=self.histogram.percentile(0.5),
            p95_duration_ms=self.histogram.percentile(0.95),
            p99_duration_ms=self.histogram.percentile(0.99),
        )


def statistics(connection: sqlite3.Connection, *, since: datetime, until: datetime) -> ExecutionStatistics:
    """See ``History.statistics``."""
    # until is exclusive: the minute in which it lies counts unless it only begins there.
    bound = {"first": to_us(since) // _MINUTE_US, "last": (to_us(until) - 1) // _MINUTE_US}
    overall, by_type = _Sum(), defaultdict[str, _Sum](_Sum)
    for job_type, *counts, duration_ms, buckets in connection.execute(statement("rollups_range"), bound).fetchall():
        by_state = dict(zip(_STATES, counts, strict=True))
        histogram = Histogram(_buckets.decode(buckets), total_ms=duration_ms)
        overall.add(by_state, histogram)
        by_type[job_type].add(by_state, histogram)
    return ExecutionStatistics(overall=overall.statistics(), by_type={name: by_type[name].statistics() for name in sorted(by_type)})


def prune(connection: sqlite3.Connection, before: datetime, limit: int) -> int:
    """See ``History.prune_executions``."""
    forgotten = connection.execute(statement("executions_forget"), {"before_us": to_us(before), "limit": limit}).rowcount
    bound = {"minute": to_us(before) // _MINUTE_US, "limit": limit - forgotten}
    return forgotten + connection.execute(statement("rollups_forget"), bound).rowcount
