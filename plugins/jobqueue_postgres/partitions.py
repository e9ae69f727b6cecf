"""Partitions of the execution history: made ahead, dropped when all that is in them is old.

How long one is follows from how long rows are kept, so that there are never many of them: hours, days or months. Instants come from the broker's
clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from .statements import statement

if TYPE_CHECKING:
    from .connections import Connection

__all__ = ["add", "drop", "missing", "wanted"]

_AHEAD: Final = 3
"""How many partitions there are ahead of now."""
_DAY: Final = timedelta(days=1)


def wanted(connection: Connection, now: datetime, *, retention: timedelta) -> list[tuple[datetime, datetime]]:
    """From when to when the partitions reach that are missing from now on."""
    known = connection.execute(statement("partitions_list")).fetchall()
    since = max((ends_at for _name, _starts_at, ends_at in known), default=None)
    if since is None and (oldest := _oldest_row(connection)) is not None:
        floor, _following = _span(retention)
        since = floor(min(oldest, now))
    return list(missing(since, now, retention=retention))


def add(connection: Connection, starts_at: datetime, ends_at: datetime) -> None:
    """Make a partition, unless somebody else has. Rows that were in none move into it.

    It must be the first in its transaction: who has looked at the tables before holds a lock that keeps others, who are before it, from going on.
    """
    connection.execute(statement("partitions_add"), {"starts_at": starts_at, "ends_at": ends_at})


def drop(connection: Connection, before: datetime) -> str | None:
    """Drop the oldest partition if all that is in it is from before *before*; its name, or None."""
    row = connection.execute(statement("partitions_drop"), {"before": before}).fetchone()
    return None if row is None else row[0]


def _oldest_row(connection: Connection) -> datetime | None:
    row = connection.execute(statement("partitions_oldest_row")).fetchone()
    return None if row is None else row[0]


def missing(since: datetime | None, now: datetime, *, retention: timedelta) -> Iterator[tuple[datetime, datetime]]:
    """From when to when the partitions reach that are to be made.

    Args:
        since: Where the latest partition ends, or where the first is to begin; None: now.
        now: The broker's time.
        retention: How long rows are kept.
    """
    floor, following = _span(retention)
    starts_at = goal = floor(now)
    if since is not None:
        # No partition is made for what would be dropped at once. One begins where the last one ends, be that in the midst of a longer span.
        starts_at = max(_hour(since), floor(now - retention))
    for _ in range(_AHEAD):
        goal = following(goal)
    while starts_at <= goal:
        ends_at = following(starts_at)
        yield starts_at, ends_at
        starts_at = ends_at


def _span(retention: timedelta) -> tuple[Callable[[datetime], datetime], Callable[[datetime], datetime]]:
    """Where the span begins in which an instant lies, and where the next one begins."""
    if retention <= 3 * _DAY:
        return _hour, lambda instant: _hour(instant) + timedelta(hours=1)
    if retention <= 100 * _DAY:
        return _day, lambda instant: _day(instant) + _DAY
    return _month, lambda instant: _month(_month(instant) + 31 * _DAY)


def _hour(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _day(instant: datetime) -> datetime:
    return _hour(instant).replace(hour=0)


def _month(instant: datetime) -> datetime:
    return _day(instant).replace(day=1)
