"""A stream of server-sent events, as one client gets it."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Self

import attrs

from .evententries import EventFilter, Told, server_sent

if TYPE_CHECKING:
    from jobqueue_api.server.closing import Closing

    from .clientwatch import ClientWatch
    from .eventhub import Reading, Subscription

__all__ = ["EventStream", "Wish"]

_RETRY: Final = timedelta(seconds=2)
"""After what time a browser connects again."""
_PING: Final = 15.0
"""Seconds after which something is sent in any case: proxies keep what is not idle, and who has gone is noticed."""
_GLANCE: Final = 0.2
"""How often to look whether the client has gone, in seconds."""


@attrs.frozen(kw_only=True)
class Wish:
    """What a client wants."""

    chosen: EventFilter
    limit: int | None
    """The stream ends after so many events."""
    timeout: timedelta | None
    """The stream ends after that time."""


class EventStream:
    """The pieces of a stream; what it holds is given back by :meth:`close`, also when it was never begun.

    Args:
        subscription: Where it is in the log.
        wish: What its client wants.
        client: The client's connection.
        closing: Ends it.
        holds: What it holds.
    """

    def __init__(self, subscription: Subscription, wish: Wish, *, client: ClientWatch, closing: Closing, holds: ExitStack) -> None:
        self._subscription = subscription
        self._wish = wish
        self._client = client
        self._closing = closing
        self._holds = holds
        self._left = wish.limit
        self._named = ""
        """The last id that was sent."""
        self._is_away = False
        self._pieces = self._all()

    def __iter__(self) -> Self:
        """It is its own iterator."""
        return self

    def __next__(self) -> bytes:
        """The next piece, when there is one."""
        return next(self._pieces)

    def close(self) -> None:
        """End it, and give back what it holds."""
        self._pieces.close()
        self._holds.close()

    def _all(self) -> Generator[bytes, None, None]:
        began = sent_at = time.monotonic()
        until = float("inf") if self._wish.timeout is None else began + self._wish.timeout.total_seconds()
        yield b"retry: %d\n%s" % (_RETRY // timedelta(milliseconds=1), self._place(str(self._subscription.start)))
        while not self._closing.begun and self._left != 0:
            now = time.monotonic()
            piece = self._piece(self._subscription.read(max(0.0, min(_GLANCE, until - now, sent_at + _PING - now))))
            if not piece and time.monotonic() >= sent_at + _PING:
                piece = b": ping\n\n" + self._passed()
            if piece:
                yield piece
                sent_at = time.monotonic()
            elif self._client.is_gone:
                return
            if time.monotonic() >= until:
                break
        if self._left != 0 and (rest := self._passed()):
            yield rest

    def _piece(self, reading: Reading) -> bytes:
        """What is sent of *reading*."""
        found = []
        if reading.is_away != self._is_away:
            self._is_away = reading.is_away
            found.append(b": the broker does not answer\n\n" if reading.is_away else b": the broker answers again\n\n")
        if reading.is_reset:
            self._named = position = str(self._subscription.mark)
            found.append(server_sent("reset", {"position": position}, position))
        for entry in reading.entries:
            chosen = self._counted(self._wish.chosen.chosen(entry.told))
            if chosen:
                found += [one.text for one in chosen]
                self._named = chosen[-1].id
        return b"".join(found)

    def _counted(self, told: Sequence[Told]) -> Sequence[Told]:
        """As many as are left of what was wanted."""
        if self._left is None:
            return told
        some = told[: self._left]
        self._left -= len(some)
        return some

    def _passed(self) -> bytes:
        """That the client has come further than the last id that it knows: nothing of what followed was for it."""
        position = str(self._subscription.mark)
        return b"" if position == self._named else self._place(position)

    def _place(self, position: str) -> bytes:
        """An id without an event."""
        self._named = position
        return b"id: %s\n\n" % position.encode()
