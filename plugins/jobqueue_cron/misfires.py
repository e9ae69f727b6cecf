"""What a schedule that is due does now: which of its ticks it fires, and when it is due next."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from jobqueue_core.scheduling.ticks import Ticks
    from jobqueue_core.storage import Schedule

__all__ = ["Decision", "decide", "grace_for"]

_LEAST_GRACE: Final = timedelta(seconds=5)


def grace_for(poll_interval: timedelta) -> timedelta:
    """How late a tick may be and still count as on time: what a scheduler that works may take to see it, or another to come in its place."""
    return max(_LEAST_GRACE, 2 * poll_interval)


@attrs.frozen(kw_only=True)
class Decision:
    """The ticks to fire, one after the other, and the schedule's next run after them."""

    ticks: tuple[datetime, ...]
    next_run: datetime | None
    missed: bool = False
    """Whether schedulers were away too long, so that the misfire policy chose the ticks."""


def decide(schedule: Schedule, ticks: Ticks, now: datetime, *, grace: timedelta) -> Decision:
    """Decide about *schedule*, whose next run is not after *now*.

    When its oldest tick that is due is late by no more than *grace*, each that is due fires. When it is later no scheduler has run meanwhile, and
    all that are due were missed: its misfire policy chooses.
    """
    due = schedule.next_run
    if due is None or due > now:
        return Decision(ticks=(), next_run=due)
    missed = now - due > grace
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
