"""The event log: a capped stream, written only while someone reads it (DESIGN R15).

A position is the id of an entry. On Redis Cluster each queue has a log of its own, and a position is one for each of them: what a queue tells is read
in order, and queues are merged by time. A queue that a position does not name has come since, and is read from when it was first looked at.
"""

from __future__ import annotations

import base64
import math
import re
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import attrs
import msgspec

from jobqueue_core.broker import Event, EventPage

from .keys import Shard
from .times import from_us

if TYPE_CHECKING:
    from .link import Link

__all__ = ["begin_listening", "is_listened", "read"]

_LISTENED: Final = timedelta(seconds=60)
"""How long the log is written after someone has read it."""
_LISTENED_MS: Final = _LISTENED // timedelta(milliseconds=1)
_BEGAN: Final = "began"
_BLOCK: Final = 1.0
"""Seconds a connection waits for an event before it looks whether it is still wanted."""
_POLL: Final = 0.2
"""Seconds between two looks at several logs."""
_RENEWED: Final = 20.0
"""Seconds after which a reader that waits says again that it does."""
_ID: Final = re.compile(r"(\d{1,20})-(\d{1,20})", re.ASCII)
_MOST: Final = (1 << 64) - 1
"""No part of an id is larger, and nothing comes after the largest."""

_blob = msgspec.msgpack.Decoder(tuple[str, dict[str, Any]])
_encoder = msgspec.msgpack.Encoder()
_positions = msgspec.msgpack.Decoder(dict[str, tuple[int, int]])

Position = tuple[int, int]
"""The id of an entry: milliseconds, and a number among those of the same millisecond."""


@attrs.frozen
class _Log:
    """What one look at the log of a shard has told."""

    shard: Shard
    began: Position
    last: Position
    entries: Sequence[tuple[bytes, Sequence[bytes]]]

    def has_lost(self, known: Mapping[str, Position]) -> bool:
        """Whether what came after a position is not, or not all, in the log."""
        position = known.get(self.shard.prefix)
        return position is not None and not self.began <= position <= self.last


def read(link: Link, after: str | None, *, limit: int, wait: timedelta) -> EventPage:
    """See ``Inspection.events``."""
    deadline = time.monotonic() + wait.total_seconds()
    while True:
        page = _look(link, after, limit)
        renew_at = time.monotonic() + _RENEWED
        if page.events or page.reset:
            return page
        after = page.position
        while not _rings(link, after, min(deadline, renew_at)):
            now = time.monotonic()
            if now >= deadline:
                return page
            if now >= renew_at:
                break


def is_listened(link: Link) -> bool:
    """Whether someone reads events; on Redis Cluster, for a queue that is new and that no reader has seen."""
    return bool(link.command(link.home, "EXISTS", link.home.key("LISTENED")))


def begin_listening(link: Link, shard: Shard) -> None:
    """Have the log of *shard* written."""
    link.call("events_read", shard, _LISTENED_MS, 1, "")


def _rings(link: Link, after: str, until: float) -> bool:
    """Wait a moment for an event, and no longer than until then (monotonic); whether there may be one."""
    remaining = until - time.monotonic()
    if remaining <= 0:
        return False
    if _is_cluster(link):
        time.sleep(min(remaining, _POLL))
        return True
    milliseconds = math.ceil(min(remaining, _BLOCK) * 1000)
    return bool(link.command(link.home, "XREAD", "COUNT", 1, "BLOCK", milliseconds, "STREAMS", link.home.key("EVENTS"), after))


def _is_cluster(link: Link) -> bool:
    """Whether each queue has a log of its own, not the one shard of all."""
    return link.shards() != [link.home]


def _look(link: Link, after: str | None, limit: int) -> EventPage:
    """The events after a position, without waiting."""
    shards = link.shards()
    names = _Positions(None if _is_cluster(link) else link.home.prefix)
    known = None if after is None else names.parse(after)
    asked = known or {}
    # A queue that the position does not name has come since.
    others = "" if known is None else _BEGAN
    replies = link.calls([("events_read", shard, (_LISTENED_MS, limit, _text(asked.get(shard.prefix)) or others)) for shard in shards])
    if _is_cluster(link):
        begin_listening(link, link.home)
    logs = [_Log(shard, _id(began), _id(last), entries) for shard, (began, last, entries) in zip(shards, replies, strict=True)]
    missed = after is not None and (known is None or any(one.has_lost(known) for one in logs))
    if known is None or missed:
        return EventPage(events=(), position=names.write({one.shard.prefix: one.last for one in logs}), reset=missed)
    positions = {one.shard.prefix: known.get(one.shard.prefix, one.began) for one in logs}
    found = sorted((_time(fields), _id(entry), one.shard.prefix, fields) for one in logs for entry, fields in one.entries)[:limit]
    events = []
    for time_us, entry, prefix, fields in found:
        positions[prefix] = entry
        event = _event(time_us, names.write(positions), fields)
        if event is not None:
            events.append(event)
    return EventPage(events=tuple(events), position=names.write(positions))


def _event(time_us: int, position: str, fields: Sequence[bytes]) -> Event | None:
    """The event in an entry; None when there is none that this release can read, or nothing is left of it."""
    facts = dict(zip(fields[::2], fields[1::2], strict=False))
    try:
        kind, data = _blob.decode(facts[b"1"])
        refused = frozenset(map(int, facts[b"x"].split(b","))) if b"x" in facts else frozenset()
    except (KeyError, ValueError):
        return None
    if refused:
        data["jobs"] = [job for number, job in enumerate(data.get("jobs", ())) if number not in refused]
    return Event(id=position, at=from_us(time_us), kind=kind, data=data)


# Positions -----------------------------------------------------------------------------------------------------------------------------


@attrs.frozen
class _Positions:
    """How positions are written: as the id of an entry where there is one log, of the shard with the prefix *only*; else as ids by prefix."""

    only: str | None

    def parse(self, position: str) -> Mapping[str, Position] | None:
        """A position for each shard, by its prefix; None when *position* is none that was ever given."""
        if self.only is not None:
            match = _ID.fullmatch(position)
            found = {} if match is None else {self.only: (int(match[1]), int(match[2]))}
        else:
            try:
                found = _positions.decode(base64.urlsafe_b64decode(position.encode("ascii")))
            except ValueError:
                return None
        sane = all(0 <= part < _MOST for one in found.values() for part in one)
        return found if sane and (found or self.only is None) else None

    def write(self, positions: Mapping[str, Position]) -> str:
        """What :meth:`parse` reads."""
        if self.only is not None:
            return _text(positions[self.only])
        return base64.urlsafe_b64encode(_encoder.encode(positions)).decode()


def _text(position: Position | None) -> str:
    return "" if position is None else f"{position[0]}-{position[1]}"


def _id(entry: bytes) -> Position:
    milliseconds, _, number = entry.partition(b"-")
    return int(milliseconds), int(number)


def _time(fields: Sequence[bytes]) -> int:
    facts = dict(zip(fields[::2], fields[1::2], strict=False))
    text = facts.get(b"t", b"")
    return int(text) if text.isdigit() else 0
