"""What tests of timetables share: all ticks of a span, and when clocks are set."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from jobqueue_core.timetable import Timetable

__all__ = ["HOUR", "MINUTE", "SECOND", "assert_due", "changes", "utc"]

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
_PROBES = 37


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def assert_due(timetable: Timetable, since: datetime, until: datetime, expected: list[datetime]) -> None:
    """Check that the ticks in [since, until] are these: each found from the next one, both ways, and from moments that are no ticks."""
    assert _forwards(timetable, since, until) == expected
    assert _backwards(timetable, since, until) == expected
    for number in range(_PROBES):
        moment = since + (until - since) / _PROBES * number
        later, earlier = timetable.after(moment), timetable.before(moment)
        if later is None or later > until:
            assert not [tick for tick in expected if tick > moment]
        else:
            assert later == min(tick for tick in expected if tick > moment)
        if earlier is None or earlier < since:
            assert not [tick for tick in expected if tick <= moment]
        else:
            assert earlier == max(tick for tick in expected if tick <= moment)


def _forwards(timetable: Timetable, since: datetime, until: datetime) -> list[datetime]:
    ticks: list[datetime] = []
    at = timetable.after(since - SECOND)
    while at is not None and at <= until:
        ticks.append(at)
        at = timetable.after(at)
    return ticks


def _backwards(timetable: Timetable, since: datetime, until: datetime) -> list[datetime]:
    ticks: list[datetime] = []
    at = timetable.before(until)
    while at is not None and at >= since:
        ticks.append(at)
        at = timetable.before(at - SECOND)
    return ticks[::-1]


def changes(zone: str, year: int) -> Iterator[datetime]:
    """The instants of a year at which the clocks are set, to the minute."""
    info, at = ZoneInfo(zone), datetime(year, 1, 1, tzinfo=UTC)
    while at.year == year:
        before = at.astimezone(info).utcoffset()
        if (at + HOUR).astimezone(info).utcoffset() != before:
            minutes = (at + number * MINUTE for number in range(1, 61))
            yield next(minute for minute in minutes if minute.astimezone(info).utcoffset() != before)
        at += HOUR
