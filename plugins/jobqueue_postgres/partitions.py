"""Partitions of the execution history: made ahead, dropped when all that is in them is old.

How long one is follows from how long rows are kept, so that there are never many of them: hours, days or months. Instants come from the broker's
clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
    known = [(starts_at, ends_at) for _name, starts_at, ends_at in connection.execute(statement("partitions_list")).fetchall()]
    return list(missing(known, _oldest_row(connection), now, retention=retention))


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


def missing(
    known: Sequence[tuple[datetime, datetime]], oldest: datetime | None, now: datetime, *, retention: timedelta
) -> Iterator[tuple[datetime, datetime]]:
    """From when to when the partitions reach that are to be made.

    Args:
        known: From when to when those reach that there are, in order.
        oldest: When the oldest execution finished that is in none of them.
        now: The broker's time.
        retention: How long rows are kept.
    """
    floor, following = _span(retention)
    starts_at = goal = floor(now)
    for _ in range(_AHEAD):
        goal = following(goal)
    before = [ends_at for _starts_at, ends_at in known if ends_at <= now]
    if before:
        starts_at = _hour(max(before))
    elif oldest is not None and not known:
        starts_at = floor(min(oldest, now))
    # No partition is made for what would be dropped at once.
    starts_at = max(starts_at, floor(now - retention))
    while starts_at <= goal:
        inside = next((one for one in known if one[0] <= starts_at < one[1]), None)
        if inside is not None:
            starts_at = _hour(inside[1])
            continue
        ends_at = min((one[0] for one in known if starts_at < one[0]), default=following(starts_at))
        ends_at = min(_hour(ends_at), following(starts_at))
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
