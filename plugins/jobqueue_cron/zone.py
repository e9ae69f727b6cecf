"""Time zones: a name -> what its clocks show at which instant, and when they are set."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from difflib import get_close_matches
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import attrs

from jobqueue_core.errors import InvalidSchedule

__all__ = ["SECOND", "Zone", "read_zone"]

SECOND: Final = timedelta(seconds=1)

_STRIDE: Final = timedelta(days=3)
"""How far apart to look for a change of offset. No zone has changed twice within six days, or is to (Asia/Gaza, 2040: seven)."""

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*", re.ASCII)
_LONGEST: Final = 64
_NO_ZONES: Final = ("posix", "right", "localtime", "posixrules", "Factory")
"""What lies beside the zones in some systems: copies, one of which counts leap seconds, and what each machine takes for its own."""


@attrs.frozen
class Zone:
    """What the clocks of a time zone show. Instants are naive UTC, wall times naive too: both lie in tight loops, and never meet but here."""

    _info: tzinfo

    def wall(self, instant: datetime) -> datetime:
        """What the clocks show at *instant*; ``fold`` is 1 if they showed it before."""
        return self._info.fromutc(instant.replace(tzinfo=self._info)).replace(tzinfo=None)

    def offset(self, instant: datetime) -> timedelta:
        """How far the clocks are ahead at *instant*."""
        return self.wall(instant) - instant

    def first_instant(self, wall: datetime) -> datetime:
        """The first instant at which the clocks show *wall*, or if they skip it, the first after the gap."""
        earlier, later = (self._offset_at(wall, fold) for fold in (0, 1))
        if earlier >= later:
            return wall - earlier
        # In a gap fold 0 counts with the offset before, which leads past the change, and fold 1 with the one after (PEP 495).
        return self._change(wall - later, wall - earlier)

    def end_of_overlap(self, instant: datetime) -> datetime:
        """The wall time at which the clocks were set back, if what they show at *instant* they showed before."""
        wall = self.wall(instant)
        before = self._offset_at(wall, 0)
        return self._change(wall - before, instant) + before

    def change_after(self, instant: datetime, until: datetime) -> datetime | None:
        """The first instant in (*instant*, *until*] at which the clocks are set."""
        offset, low = self.offset(instant), instant
        while low < until:
            high = min(low + _STRIDE, until)
            if self.offset(high) != offset:
                return self._change(low, high)
            low = high
        return None

    def change_before(self, instant: datetime, since: datetime) -> datetime | None:
        """The last instant in (*since*, *instant*] at which the clocks are set."""
        offset, high = self.offset(instant), instant
        while high > since:
            low = max(high - _STRIDE, since)
            if self.offset(low) != offset:
                return self._change(low, high)
            high = low
        return None

    def _offset_at(self, wall: datetime, fold: int) -> timedelta:
        offset = wall.replace(tzinfo=self._info, fold=fold).utcoffset()
        assert offset is not None  # noqa: S101 - all zones of IANA have one
        return offset

    def _change(self, low: datetime, high: datetime) -> datetime:
        """The one instant in (*low*, *high*] at which the clocks are set."""
        offset, before, after = self.offset(low), 0, (high - low) // SECOND
        while after - before > 1:
            middle = (before + after) // 2
            if self.offset(low + middle * SECOND) == offset:
                before = middle
            else:
                after = middle
        return low + after * SECOND


def read_zone(name: str) -> Zone:
    """Find a time zone by its IANA name.

    Raises:
        InvalidSchedule: There is none of that name.
    """
    if not isinstance(name, str):
        raise InvalidSchedule("timezone", f"expected a name such as 'Europe/Berlin', got {type(name).__name__}")
    if name == "UTC":  # also on a machine that has no time zones
        return Zone(UTC)
    if len(name) > _LONGEST or not _NAME.fullmatch(name) or name.partition("/")[0] in _NO_ZONES:
        shown = f"{name[:_LONGEST]!r}{' and so on' * (len(name) > _LONGEST)}"
        raise InvalidSchedule("timezone", f"{shown} is not a name such as 'Europe/Berlin' or 'UTC'")
    try:
        return Zone(ZoneInfo(name))
    except (ZoneInfoNotFoundError, ValueError, OSError):  # none, no zone, or a folder
        raise InvalidSchedule("timezone", f"no time zone {name!r}{_suggestion(name)}") from None


def _suggestion(name: str) -> str:
    known = available_timezones()
    if not known:
        return "; this machine has no time zones: install the package tzdata"
    by_word: dict[str, str] = {}
    for zone in sorted(known):
        by_word.setdefault(zone.rpartition("/")[2].lower(), zone)
    by_word |= {zone.lower(): zone for zone in known}
    found = dict.fromkeys(by_word[word] for word in get_close_matches(name.lower(), by_word, n=3, cutoff=0.7))
    return f"; did you mean {' or '.join(found)}?" if found else "; its name is as in the IANA list, such as 'Europe/Berlin' or 'UTC'"
