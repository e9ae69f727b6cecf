"""The event log: capped, and written only while someone reads it.

Positions are numbers of one sequence. When reading begins after a pause, the log starts again one number further on, so that a position from
before the pause, in which nothing was written, is known to have missed something.
"""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from typing import Any, Final

import msgspec

from jobqueue_core.broker import Event, EventPage

from .ledger import MAX_EVENTS, Ledger
from .statements import statement
from .times import duration_us, from_us

__all__ = ["LISTENED", "Log", "listen", "read"]

LISTENED: Final = timedelta(seconds=60)
"""How long the log is written after someone has read it."""
_REFRESH: Final = timedelta(seconds=20)

_data = msgspec.msgpack.Decoder(dict[str, Any])


class Log:
    """How the log stands: the last number given out, the position before its first event, and until when it is written."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        last, base, until_us = connection.execute(statement("events_bounds")).fetchone()
        self.last: int = last
        self.base: int = max(base, last - MAX_EVENTS)
        self.until_us: int = until_us

    def needs_listening(self, now_us: int) -> bool:
        """Whether it is time to say again that someone reads."""
        return self.until_us < now_us + duration_us(LISTENED - _REFRESH)


def listen(ledger: Ledger) -> None:
    """Say that someone reads the log."""
    log = Log(ledger.connection)
    if log.until_us <= ledger.now_us:
        base = ledger.take_numbers("event", 1)[0]
        ledger.connection.execute(statement("numbers_set"), {"name": "event_base", "value": base})
        ledger.connection.execute(statement("events_trim"), {"last": base})
    until_us = ledger.now_us + duration_us(LISTENED)
    ledger.connection.execute(statement("numbers_set"), {"name": "event_until_us", "value": until_us})


def read(connection: sqlite3.Connection, after: str | None, limit: int) -> EventPage:
    """The events after a position, without waiting."""
    log = Log(connection)
    if after is None:
        return EventPage(events=(), position=str(log.last))
    position = int(after) if after.isascii() and after.isdigit() and len(after) < 19 else -1
    if not log.base <= position <= log.last:
        return EventPage(events=(), position=str(log.last), reset=True)
    rows = connection.execute(statement("events_read"), {"after": position, "limit": limit}).fetchall()
    events = tuple(Event(str(number), from_us(at_us), kind, _data.decode(data)) for number, at_us, kind, data in rows)
    return EventPage(events=events, position=events[-1].id if events else after)
