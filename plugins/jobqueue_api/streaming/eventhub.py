"""One reader of the broker's events for all streams of a process."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import attrs

from jobqueue_core.errors import JobQueueError

from .evententries import Entry, Mark, entries
from .eventring import EventRing

if TYPE_CHECKING:
    from jobqueue_api.backend import Backend
    from jobqueue_api.server.closing import Closing
    from jobqueue_core.broker import EventPage

__all__ = ["EventHub", "Reading", "Subscription"]

_log = logging.getLogger("jobqueue.api")

_NOW: Final = timedelta(0)
_WAIT: Final = timedelta(seconds=2)
_PAGE: Final = 50
"""Entries that are read at once; each may tell of hundreds of jobs."""
_PACE: Final = 0.05
"""Seconds between two looks while much happens: what gathers meanwhile goes to each stream in one piece."""
_LINGER: Final = 30.0
"""For how many seconds the log is read on when nobody listens: who reconnects has missed nothing."""
_FIRST_PAUSE: Final = 0.1
_LAST_PAUSE: Final = 1.0
_PIECE: Final = 256 << 10
"""Bytes that a stream gets at once."""


@attrs.frozen(kw_only=True)
class Reading:
    """What a stream is to tell next."""

    entries: Sequence[Entry] = ()
    is_reset: bool = False
    """Whether some have been missed before."""
    is_away: bool = False
    """Whether the broker does not answer."""


class EventHub:
    """Reads the log in one thread, from the first stream until some time after the last one, and keeps the newest entries as they are sent.

    A stream is no more than a position. Where that is among what is kept, it is served from memory; where it is not, because it resumes from further
    back or its client reads slowly, the stream reads the log itself until it is. So there is no moment of joining at which something could be lost
    or told twice, and no buffer for each client that could grow.

    Args:
        backend: Where the broker is.
        closing: Ends the reading.
    """

    def __init__(self, backend: Backend, closing: Closing) -> None:
        self._backend = backend
        self._closing = closing
        self._changed = threading.Condition()
        self._turn = 0
        """Rises whenever there is something new to see."""
        self._ring: EventRing | None = None
        """None: nobody reads."""
        self._streams = 0
        self._left_at = 0.0
        self._is_away = False
        closing.listen(self._wake)

    # Streams ---------------------------------------------------------------------------------------------------------------------------

    @contextmanager
    def subscribed(self, mark: Mark | None) -> Iterator[Subscription]:
        """A subscription for the block, from *mark* on, or from now.

        From where is settled before this returns: whatever happens afterwards is told.

        Raises:
            BrokerUnavailable: No answer.
        """
        page = self.look(None if mark is None else mark.position)
        self._join(page.position)
        try:
            yield Subscription(self, mark, page)
        finally:
            with self._changed:
                self._streams -= 1
                self._left_at = time.monotonic()

    def look(self, after: str | None) -> EventPage:
        """What follows in the log, without waiting.

        Raises:
            BrokerUnavailable: No answer.
        """
        return self._backend.queue.broker.events(after, limit=_PAGE, wait=_NOW)

    def kept(self, position: str) -> tuple[int, list[Entry] | None]:
        """The turn, and what is kept behind a position; None when that is unknown here."""
        with self._changed:
            return self._turn, None if self._ring is None else self._ring.after(position, most=_PIECE)

    def wait(self, turn: int, seconds: float) -> bool:
        """Wait for another turn, up to so many seconds, or until closing begins; whether the broker is away."""
        with self._changed:
            self._changed.wait_for(lambda: self._turn != turn or self._closing.begun, seconds)
            return self._is_away

    def _join(self, position: str) -> None:
        with self._changed:
            self._streams += 1
            if self._ring is None:
                self._ring = EventRing(position)
                self._is_away = False
                threading.Thread(target=self._read_on, args=(position,), name="jobqueue-events", daemon=True).start()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    # Reader ----------------------------------------------------------------------------------------------------------------------------

    def _read_on(self, position: str) -> None:
        pause = _FIRST_PAUSE
        while not self._is_over():
            try:
                # Once it is back, that is to be known at once.
                page = self._backend.queue.broker.events(position, limit=_PAGE, wait=_NOW if self._is_away else _WAIT)
                found = entries(page.events, Mark(position))
            except Exception as error:  # noqa: BLE001 - of a broker that anybody may have written; the thread would be missed
                self._failed(error)
                self._closing.wait(pause)
                pause = min(pause * 2, _LAST_PAUSE)
                continue
            pause = _FIRST_PAUSE
            position = page.position
            self._add(page, found)
            if 0 < len(page.events) < _PAGE:
                self._closing.wait(_PACE)

    def _is_over(self) -> bool:
        """Whether nobody has listened for long; then the next stream starts another reader."""
        with self._changed:
            left = self._streams == 0 and time.monotonic() - self._left_at >= _LINGER
            if left or self._closing.begun:
                self._ring = None
                return True
            return False

    def _add(self, page: EventPage, found: Sequence[Entry]) -> None:
        with self._changed:
            if self._ring is None or page.reset:
                self._ring = EventRing(page.position)
            self._ring.add(found)
            if found or page.reset or self._is_away:
                self._turned(is_away=False)

    def _failed(self, error: Exception) -> None:
        with self._changed:
            if self._is_away or self._closing.begun:
                return
            self._turned(is_away=True)
        _log.warning("events cannot be read", extra={"fields": {"problem": str(error)}}, exc_info=None if isinstance(error, JobQueueError) else error)

    def _turned(self, *, is_away: bool) -> None:
        self._is_away = is_away
        self._turn += 1
        self._changed.notify_all()


class Subscription:
    """One reader's place in the log. For one thread.

    Args:
        hub: Where most is read from.
        mark: From where; None: from now.
        page: What the broker has said to that.
    """

    def __init__(self, hub: EventHub, mark: Mark | None, page: EventPage) -> None:
        self._hub = hub
        self._looked_at: int | None = None
        self.mark = Mark(page.position) if mark is None or page.reset else mark
        """How far it has come."""
        self.start = self.mark
        """Where it began."""
        self._first: Reading | None = self._taken(page)

    def read(self, seconds: float) -> Reading:
        """What follows; waits up to so many seconds for it."""
        if self._first is not None:
            first, self._first = self._first, None
            return first
        turn, kept = self._hub.kept(self.mark.position)
        if kept is None and self._looked_at != turn:
            # Once a turn: when there is more in the log, there is another turn.
            self._looked_at = turn
            return self._look() or Reading(is_away=self._hub.wait(turn, seconds))
        if kept:
            self.mark = Mark(kept[-1].position)
            return Reading(entries=kept)
        return Reading(is_away=self._hub.wait(turn, seconds))

    def _look(self) -> Reading | None:
        """What follows in the log itself; None when there is nothing, or no answer."""
        before = self.mark
        try:
            reading = self._taken(self._hub.look(before.position))
        except JobQueueError:
            return None
        if self.mark == before:
            return None
        self._looked_at = None
        return reading

    def _taken(self, page: EventPage) -> Reading:
        found = entries(page.events, self.mark)
        if found or page.reset or not self.mark.seen:
            self.mark = Mark(page.position)
        return Reading(entries=found, is_reset=page.reset)
