"""What tests of timetables share: all ticks of a span, and when clocks are set."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from jobqueue_core.timetable import Timetable

__all__ = ["HOUR", "MINUTE", "SECOND", "backwards", "changes", "forwards", "utc"]

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def forwards(timetable: Timetable, since: datetime, until: datetime) -> list[datetime]:
    """The ticks in [since, until], each found from the one before."""
    ticks: list[datetime] = []
    at = timetable.after(since - SECOND)
    while at is not None and at <= until:
        ticks.append(at)
        at = timetable.after(at)
    return ticks


def backwards(timetable: Timetable, since: datetime, until: datetime) -> list[datetime]:
    """The same, each found from the one behind."""
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
