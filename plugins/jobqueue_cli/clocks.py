"""How a moment reads on two clocks: those of a schedule's time zone, and those of whoever sits here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from jobqueue_cli.rendering import short_duration
from jobqueue_core.job import rfc3339

__all__ = ["clock", "here", "on_both", "tick_object", "turns"]


def clock(moment: datetime, timezone: str) -> str:
    """*moment* in an IANA time zone, as ``2026-03-29T03:00:00+02:00 CEST``."""
    return _read(moment, _zone(timezone))


def here(moment: datetime) -> str:
    """The same in the time zone of this terminal."""
    return _read(moment, None)


def on_both(moment: datetime, timezone: str) -> str:
    """*moment* on both clocks, in one line."""
    theirs, ours = clock(moment, timezone), here(moment)
    return f"{theirs}, here {'the same' if ours == theirs else ours}"


def tick_object(moment: datetime, timezone: str) -> dict[str, Any]:
    """A tick as ``--json`` and the REST API show it."""
    return {"at": rfc3339(moment), "local": moment.astimezone(_zone(timezone)).isoformat()}


def turns(moments: Sequence[datetime], timezone: str) -> Mapping[str, str]:
    """Where clocks are put forward or back between two moments: the later one (RFC 3339) -> by how much, as ``forward 1h: +01:00 -> +02:00``."""
    zone = _zone(timezone)
    found: dict[str, str] = {}
    for before, moment in pairwise(moments):
        # Most often both are the same zone, or turn in the same night: that is one thing to say.
        theirs, ours = _turn(before, moment, zone), _turn(before, moment, None)
        parts = [part for part in (theirs, ours and f"{ours} here" if ours != theirs else "") if part]
        if parts:
            found[str(rfc3339(moment))] = ", ".join(parts)
    return found


def _turn(before: datetime, moment: datetime, zone: tzinfo | None) -> str:
    old, new = before.astimezone(zone), moment.astimezone(zone)
    by = (new.utcoffset() or timedelta(0)) - (old.utcoffset() or timedelta(0))
    return f"{'forward' if by > timedelta(0) else 'back'} {short_duration(abs(by))}: {_offset(old)} -> {_offset(new)}" if by else ""


def _offset(local: datetime) -> str:
    return local.isoformat().removeprefix(local.replace(tzinfo=None).isoformat())


def _read(moment: datetime, zone: tzinfo | None) -> str:
    local = moment.astimezone(zone)
    name = local.tzname() or ""
    # Many zones have no abbreviation but their offset, which stands there already.
    return f"{local.isoformat()} {name}" if name.isalpha() else local.isoformat()


def _zone(timezone: str) -> tzinfo:
    try:
        return ZoneInfo(timezone)
    except (ValueError, OSError, KeyError):
        # Another host knew it. That is for whoever reads the schedule to complain about, not for who lists it.
        return UTC
