"""The ticks of one schedule: its timetable, from its start to its end."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from jobqueue_core.storage import Schedule
    from jobqueue_core.timetable import Timetable, Timetables

__all__ = ["Ticks"]

_MOMENT: Final = timedelta(microseconds=1)


class Ticks:
    """When a schedule is due, and when it is not any more. A tick on its start or end is one of it."""

    def __init__(self, timetable: Timetable, *, start: datetime | None = None, end: datetime | None = None) -> None:
        self._timetable = timetable
        self._start = start
        self._end = end

    @classmethod
    def of(cls, schedule: Schedule, timetables: Timetables) -> Ticks:
        """The ticks of *schedule*.

        Raises:
            InvalidSchedule: Its expression or time zone cannot be read.
            PluginError: No installed plugin reads such.
        """
        return cls(timetables.read(schedule.expression, schedule.timezone), start=schedule.start, end=schedule.end)

    def after(self, moment: datetime) -> datetime | None:
        """The first tick later than *moment*; None when there is none."""
        if self._start is not None and moment < self._start:
            moment = self._start - _MOMENT
        tick = _sound(self._timetable.after(moment), moment, later=True)
        return None if tick is None or (self._end is not None and tick > self._end) else tick

    def before(self, moment: datetime) -> datetime | None:
        """The last tick not later than *moment*; None when there is none."""
        moment = moment if self._end is None else min(moment, self._end)
        tick = _sound(self._timetable.before(moment), moment, later=False)
        return None if tick is None or (self._start is not None and tick < self._start) else tick

    def from_to(self, first: datetime, last: datetime) -> Iterator[datetime]:
        """The ticks from *first* to *last*, both included."""
        tick = self.after(first - _MOMENT)
        while tick is not None and tick <= last:
            yield tick
            tick = self.after(tick)

    def latest(self, count: int, *, since: datetime, until: datetime) -> list[datetime]:
        """The last *count* ticks from *since* to *until*, oldest first."""
        found: list[datetime] = []
        tick = self.before(until)
        while tick is not None and tick >= since and len(found) < count:
            found.append(tick)
            tick = self.before(tick - _MOMENT)
        return found[::-1]


def _sound(tick: datetime | None, moment: datetime, *, later: bool) -> datetime | None:
    """What a timetable has answered, if it is what it promises: it may be a third party's, and a loop that goes by it must end."""
    if tick is not None and (tick.utcoffset() is None or (tick > moment) is not later):
        msg = f"its timetable answers {tick.isoformat()} as the tick {'after' if later else 'not after'} {moment.isoformat()}"
        raise ValueError(msg)
    return tick
