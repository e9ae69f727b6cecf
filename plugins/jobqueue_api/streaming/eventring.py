"""The newest entries of the event log, kept in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .evententries import Entry

__all__ = ["EventRing"]

_MOST: Final = 4 << 20


class EventRing:
    """The entries behind some position, without a gap, as many as have room. Not for several threads at once.

    Args:
        position: Where it begins.
        most: Bytes that are kept; at least the latest entry is.
    """

    def __init__(self, position: str, *, most: int = _MOST) -> None:
        self._most = most
        self._size = 0
        self._entries: deque[Entry] = deque()
        self._starts: deque[str] = deque([position])
        """Before each entry, and behind the last."""
        self._numbers = {position: 0}
        """Position -> how many entries came before it, those counted that are gone."""
        self._gone = 0

    def add(self, entries: Iterable[Entry]) -> None:
        """Add what follows."""
        for entry in entries:
            self._entries.append(entry)
            self._starts.append(entry.position)
            self._numbers[entry.position] = self._gone + len(self._entries)
            self._size += entry.size
        while self._size > self._most and len(self._entries) > 1:
            self._size -= self._entries.popleft().size
            del self._numbers[self._starts.popleft()]
            self._gone += 1

    def after(self, position: str, *, most: int) -> list[Entry] | None:
        """What follows a position, up to so many bytes and at least one entry if there is one; None when the position is none that is known."""
        number = self._numbers.get(position)
        if number is None:
            return None
        found: list[Entry] = []
        for index in range(number - self._gone, len(self._entries)):
            entry = self._entries[index]
            if found and entry.size > most:
                break
            most -= entry.size
            found.append(entry)
        return found
