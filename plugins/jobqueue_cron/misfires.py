"""What a schedule that is due does now: which of its ticks it fires, and when it is due next."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from jobqueue_core.scheduling.ticks import Ticks
    from jobqueue_core.storage import Schedule

__all__ = ["Attendance", "Decision", "decide", "grace_for"]

_LEAST_GRACE: Final = timedelta(seconds=5)
_FORGIVEN: Final = timedelta(minutes=5)
"""How late a tick may be and not be missed, though a scheduler was there all the time: it was busy with others, or could not read this one."""


def grace_for(poll_interval: timedelta) -> timedelta:
    """How late a tick may be and still count as on time: what a scheduler that works may take to see it, or another to come in its place."""
    return max(_LEAST_GRACE, 2 * poll_interval)


class Attendance:
    """Since when a scheduler has looked at what is due without a gap, by the broker's clock: what came due since was not missed, only delayed.

    Args:
        grace: How long it may take from one look to the next.
    """

    def __init__(self, grace: timedelta) -> None:
        self.grace = grace
        self._since: datetime | None = None
        self._last: datetime | None = None

    def look(self, now: datetime) -> None:
        """Look at *now*."""
        # Also when the clock was set back: what it shows again came due while somebody was there.
        if self._since is None or self._last is None or now < self._since or now - self._last > self.grace:
            self._since = now
        self._last = now

    def missed(self, due: datetime, now: datetime) -> bool:
        """Whether what was due at *due* has been missed."""
        attended_since = now if self._since is None else self._since
        return attended_since - due > self.grace or now - due > max(self.grace, _FORGIVEN)


@attrs.frozen(kw_only=True)
class Decision:
    """The ticks to fire, one after the other, and the schedule's next run after them."""

    ticks: tuple[datetime, ...]
    next_run: datetime | None
    missed: bool = False
    """Whether schedulers were away too long, so that the misfire policy chose the ticks."""


def decide(schedule: Schedule, ticks: Ticks, now: datetime, attendance: Attendance) -> Decision:
    """Decide about *schedule*, whose next run is not after *now*.

    When this scheduler was there when its oldest tick came due, or not much later, each that is due fires. Otherwise no scheduler has run
    meanwhile, and all that are due were missed: its misfire policy chooses.
    """
    due = schedule.next_run
    if due is None or due > now:
        return Decision(ticks=(), next_run=due)
    missed = attendance.missed(due, now)
    if not missed:
        # The first is what was promised, even if other rules of the time zone have been installed since.
        chosen = [due, *(tick for tick in ticks.from_to(due, now) if tick > due)]
    elif schedule.misfire == "skip":
        chosen = []
    else:
        count = schedule.misfire_limit if schedule.misfire == "all" else 1
        chosen = ticks.latest(count, since=due, until=now) or [due]
    if schedule.overlap == "skip":
        # The others would find the first still running.
        chosen = chosen[-1:]
    return Decision(ticks=tuple(chosen), next_run=ticks.after(now), missed=missed)
