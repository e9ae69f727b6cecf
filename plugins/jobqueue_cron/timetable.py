"""Timetables of cron: at which instants an expression is due in a time zone, also where its clocks are set."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import attrs

from .expression import FIRST, LAST, Expression, read_expression
from .zone import SECOND, Zone, read_zone

__all__ = ["CronTimetable", "read"]

_DAY: Final = timedelta(days=1)
_FROM: Final = (FIRST - _DAY).replace(tzinfo=UTC)
_TO: Final = (LAST + _DAY).replace(tzinfo=UTC)
"""No tick lies outside, for no zone is a day ahead or behind."""


def read(expression: str, timezone: str) -> CronTimetable:
    """Read an expression (``30 2 * * *``) and the name of a time zone (``Europe/Berlin``).

    Raises:
        InvalidSchedule: One of them is wrong, or the expression names what never happens.
    """
    return CronTimetable(expression=read_expression(expression), zone=read_zone(timezone))


@attrs.frozen(kw_only=True, eq=False)
class CronTimetable:
    """When an expression is due in a time zone. One thread at a time may ask it.

    Fixed times (``30 2 * * *``) are due once each: one that the clocks skip, at the first moment after the gap, together with all others in it;
    one that they show twice, the first time. Intervals (``*/15 * * * *``) follow elapsed time: they are due whenever the clocks show it, twice
    in an overlap, and not at all in a gap. All this is as Debian's cron has it; see ``Expression.is_fixed``.
    """

    _expression: Expression = attrs.field(alias="expression")
    _zone: Zone = attrs.field(alias="zone")

    def after(self, moment: datetime) -> datetime | None:
        """The first tick later than *moment*; None when there is none."""
        instant = _instant(moment)
        found = self._fixed_after(instant) if self._expression.is_fixed else self._interval_after(instant)
        return found and found.replace(tzinfo=UTC)

    def before(self, moment: datetime) -> datetime | None:
        """The last tick not later than *moment*; None when there is none."""
        instant = _instant(moment)
        found = self._fixed_before(instant) if self._expression.is_fixed else self._interval_before(instant)
        return found and found.replace(tzinfo=UTC)

    def _fixed_after(self, instant: datetime) -> datetime | None:
        wall = self._zone.wall(instant)
        if wall.fold:  # all that is shown twice has come due at the first time
            wall = self._zone.end_of_overlap(instant) - SECOND
        due = self._expression.next(wall)
        return due and self._zone.first_instant(due)

    def _fixed_before(self, instant: datetime) -> datetime | None:
        wall = self._zone.wall(instant)
        if wall.fold:
            wall = self._zone.end_of_overlap(instant) - SECOND
        due = self._expression.last(wall)
        return due and self._zone.first_instant(due)

    def _interval_after(self, instant: datetime) -> datetime | None:
        """Go from one change of the clocks to the next, until the time that is due lies before it."""
        zone = self._zone
        searched_from = zone.wall(instant)
        due = self._expression.next(searched_from)
        while due is not None:
            at = due - zone.offset(instant)
            change = zone.change_after(instant, at)
            if change is None:
                return at
            instant, wall = change, zone.wall(change)
            if not searched_from < wall <= due:  # the clocks went back behind where the search began, or forward past what it found
                searched_from = wall - SECOND
                due = self._expression.next(searched_from)
        return None

    def _interval_before(self, instant: datetime) -> datetime | None:
        """The same towards the past."""
        zone = self._zone
        searched_from = zone.wall(instant)
        due = self._expression.last(searched_from)
        while due is not None:
            at = due - zone.offset(instant)
            change = zone.change_before(instant, at)
            if change is None:
                return at
            instant = change - SECOND
            wall = zone.wall(instant)
            if not due <= wall <= searched_from:
                searched_from = wall
                due = self._expression.last(searched_from)
        return None


def _instant(moment: datetime) -> datetime:
    """As naive UTC, on the second that has begun: ticks are on whole seconds, so none lies between."""
    return min(max(moment, _FROM), _TO).astimezone(UTC).replace(tzinfo=None, microsecond=0)
