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
from jobqueue_core.storage import (
    EndFilter,
    ExecutionFilter,
    ExecutionPage,
    ExecutionStatistics,
    ExecutionTotals,
    RecordPolicy,
    TypeStatistics,
    TypeTotals,
)

from .filters import filtered
from .records import as_json
from .statements import statement
from .times import duration_us, to_us

__all__ = ["ends", "executions", "have_ended", "job_executions", "prune", "record", "statistics", "totals"]

_STATES: Final = tuple(state.value for state in ExecutionState)
_TIMED: Final = frozenset({ExecutionState.COMPLETED, ExecutionState.FAILED, ExecutionState.DEAD})
"""The runs whose durations count."""
_COUNTED_KEPT: Final = timedelta(days=1)
_COUNTED_LATEST: Final = 100_000
_FORGET_STEP: Final = 10_000
_MINUTE_US: Final = 60_000_000
_ALL_TIME: Final = 1 << 40
"""The minute under which everything is counted once more, for good: so late that neither a time range nor what is pruned reaches it."""

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
    added: defaultdict[tuple[int, str], _Sum] = defaultdict(_Sum)
    for one in new:
        added[to_us(one.finished_at) // _MINUTE_US, one.type].count(one)
    for (_, job_type), part in list(added.items()):
        added[_ALL_TIME, job_type].add(part.counts, part.histogram)
    for (minute, job_type), part in added.items():
        key = {"minute": minute, "type": job_type}
        known = connection.execute(statement("rollups_get"), key).fetchone()
        histogram = Histogram(None if known is None else _buckets.decode(known[0]))
        # Made of stored buckets its sum starts at zero: afterwards it is what this part adds.
        histogram.merge([part.histogram])
        row = key | part.counts | {"duration_ms": histogram.total_ms, "histogram": _encoder.encode(histogram.buckets)}
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


def ends(connection: sqlite3.Connection, wanted: EndFilter, *, cursor: str | None, limit: int) -> ExecutionPage:
    """See ``History.ends``."""
    until_us = to_us(wanted.until)
    # One bound, not two: SQLite would begin at the one and walk to the other.
    after_us, after_id = (until_us, "") if cursor is None else min((until_us, ""), _cursor(cursor))
    conditions = {"type": wanted.type, "queue": wanted.queue, "after_execution": after_id}
    bound = conditions | {"after_us": after_us, "after_id": after_id, "finished_until_us": until_us, "limit": limit + 1}
    text = filtered("executions_ends", conditions)
    found = []
    for state in wanted.execution_states:
        along = text.replace("/*index*/", f"INDEXED BY {_index(state, wanted)}")
        found += connection.execute(along, bound | {"state": state.value}).fetchall()
    rows = sorted(found, key=lambda row: (row[0], row[1]), reverse=True)[: limit + 1]
    page = rows[:limit]
    following = f"{page[-1][0]}~{page[-1][1]}" if len(rows) > limit else None
    last_ones = (_execution.decode(record) for _, _, record, is_last in page if is_last)
    return ExecutionPage(executions=tuple(one for one in last_ones if wanted.takes(one)), next=following)


def _index(state: ExecutionState, wanted: EndFilter) -> str:
    # Most runs complete, and few end a job in another way: so few rows are passed over.
    if state is not ExecutionState.COMPLETED or (wanted.type is None and wanted.queue is None):
        return "executions_state"
    return "executions_queue" if wanted.type is None else "executions_type"


def have_ended(connection: sqlite3.Connection, jobs: Sequence[tuple[str, datetime]], wanted: EndFilter) -> list[bool]:
    """See ``History.have_ended``."""
    bound = {"jobs": as_json([job_id, to_us(since)] for job_id, since in jobs), "finished_until_us": to_us(wanted.until)}
    rows = connection.execute(statement("executions_last_of_jobs"), bound).fetchall()
    return [record is not None and wanted.takes(_execution.decode(record)) for (record,) in rows]


class _Sum:
    """Executions and rollups added together."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(_STATES, 0)
        self.histogram = Histogram()

    def count(self, execution: Execution) -> None:
        self.counts[execution.state.value] += 1
        if execution.state in _TIMED:
            self.histogram.add(execution.duration_ms)

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


def totals(connection: sqlite3.Connection, limit: int) -> ExecutionTotals:
    """See ``History.totals``."""
    rows = connection.execute(statement("rollups_largest"), {"minute": _ALL_TIME, "limit": limit}).fetchall()
    by_type = {}
    for job_type, *counts, duration_ms, buckets, _ in rows:
        histogram = Histogram(_buckets.decode(buckets), total_ms=duration_ms)
        by_type[job_type] = TypeTotals(counts=dict(zip(ExecutionState, counts, strict=True)), durations=histogram)
    return ExecutionTotals(types=rows[0][-1] if rows else 0, by_type=by_type)


def prune(connection: sqlite3.Connection, before: datetime, limit: int) -> int:
    """See ``History.prune_executions``."""
    forgotten = connection.execute(statement("executions_forget"), {"before_us": to_us(before), "limit": limit}).rowcount
    bound = {"minute": to_us(before) // _MINUTE_US, "limit": limit - forgotten}
    return forgotten + connection.execute(statement("rollups_forget"), bound).rowcount
