"""What executions add up to, from rollups of minutes, hours, quarters of a day, and all time."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from jobqueue_core.attempt import ExecutionState
from jobqueue_core.histogram import Histogram
from jobqueue_core.storage import ExecutionStatistics, ExecutionTotals, TypeStatistics, TypeTotals

from .statements import statement
from .texts import unescaped

if TYPE_CHECKING:
    from .connections import Connection

__all__ = ["forget", "statistics", "totals"]

_STATES: Final = tuple(state.value for state in ExecutionState)
"""In the order of the columns."""
_MINUTE: Final = timedelta(minutes=1)
_SPANS: Final = (1, 60, 360)
"""How many minutes the rollups are of that are forgotten in time; executions_add.sql writes them, and those of span 0: of all time."""
_ORIGIN: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""From where they are counted."""


def statistics(connection: Connection, *, since: datetime, until: datetime) -> ExecutionStatistics:
    """See ``History.statistics``."""
    bound = _range(since, until)
    histograms: defaultdict[str, dict[int, int]] = defaultdict(dict)
    for job_type, bucket, count in connection.execute(statement("durations_range"), bound, prepare=False).fetchall():
        histograms[job_type][bucket] = count
    by_type: dict[str, TypeStatistics] = {}
    totals, merged = dict.fromkeys(_STATES, 0), Histogram()
    for job_type, *counts, duration_ms in connection.execute(statement("rollups_range"), bound, prepare=False).fetchall():
        by_state = dict(zip(_STATES, counts, strict=True))
        histogram = Histogram(histograms[job_type], total_ms=duration_ms)
        by_type[unescaped(job_type)] = _figures(by_state, histogram)
        for state, count in by_state.items():
            totals[state] += count
        merged.merge([histogram])
    return ExecutionStatistics(overall=_figures(totals, merged), by_type=by_type)


def totals(connection: Connection, limit: int) -> ExecutionTotals:
    """See ``History.totals``."""
    rows = connection.execute(statement("rollups_largest"), {"limit": limit}).fetchall()
    by_type = {}
    for job_type, *counts, duration_ms, buckets, sizes, _ in rows:
        histogram = Histogram(dict(zip(buckets or (), sizes or (), strict=True)), total_ms=duration_ms)
        by_type[unescaped(job_type)] = TypeTotals(counts=dict(zip(ExecutionState, counts, strict=True)), durations=histogram)
    return ExecutionTotals(types=rows[0][-1] if rows else 0, by_type=by_type)


def _range(since: datetime, until: datetime) -> dict[str, datetime]:
    """Where the parts of a range begin and end: minutes at both ends, hours within them, quarters of a day in the middle."""
    first, end = _floor(since, _MINUTE), _ceiling(until, _MINUTE)
    hours_first, hours_end = _within(first, end, 60 * _MINUTE)
    middle_first, middle_end = _within(hours_first, hours_end, 360 * _MINUTE)
    return {
        "first": first,
        "hours_first": hours_first,
        "middle_first": middle_first,
        "middle_end": middle_end,
        "hours_end": hours_end,
        "end": end,
    }


def _within(first: datetime, end: datetime, span: timedelta) -> tuple[datetime, datetime]:
    """The whole spans between *first* and *end*; an empty range at the end when there are none."""
    inner_first, inner_end = _ceiling(first, span), _floor(end, span)
    return (inner_first, inner_end) if inner_first < inner_end else (end, end)


def _floor(instant: datetime, span: timedelta) -> datetime:
    return _ORIGIN + (instant - _ORIGIN) // span * span


def _ceiling(instant: datetime, span: timedelta) -> datetime:
    start = _floor(instant, span)
    return start if start == instant else start + span


def _figures(counts: dict[str, int], histogram: Histogram) -> TypeStatistics:
    numbers: dict[str, Any] = dict(counts)
    return TypeStatistics(
        total=sum(counts.values()),
        **numbers,
        avg_duration_ms=histogram.mean_ms,
        p50_duration_ms=histogram.percentile(0.5),
        p95_duration_ms=histogram.percentile(0.95),
        p99_duration_ms=histogram.percentile(0.99),
    )


def forget(connection: Connection, before: datetime, limit: int) -> int:
    """Forget up to *limit* rollups of what was before *before*; says how many."""
    forgotten = 0
    for table in ("rollups", "durations"):
        for span in _SPANS:
            bound = {"span": span, "before": _floor(before, span * _MINUTE), "limit": limit - forgotten}
            forgotten += connection.execute(statement(f"{table}_forget"), bound).rowcount
    return forgotten
