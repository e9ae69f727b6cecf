"""Threads that are held: by event streams, and by requests that wait for a job."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from .problems import Refusal

__all__ = ["Held"]

_LEAVING: Final = 0.3
"""Seconds within which a thread is given back whose client has gone."""


class Held:
    """A budget, so that those who wait leave threads for everybody else.

    Args:
        limit: How many threads may be held at once.
    """

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._limit = limit
        self._is_hoped_for = False
        self._changed = threading.Condition()

    def take(self, status: int, code: str, what: str) -> None:
        """Hold one more, until :meth:`give_back`.

        Args:
            status: Answered when the budget is used up.
            code: Likewise.
            what: What would have held it, in the plural, for the message.

        Raises:
            Refusal: The budget is used up.
        """
        with self._changed:
            if self._free or self._comes_free():
                self._free -= 1
                return
        message = f"this process holds {self._limit} streams and waits already, half of [api] threads: no more {what} now"
        raise Refusal(status, code, message, headers={"Retry-After": "1"})

    def _comes_free(self) -> bool:
        """Wait a moment: a page that is loaded again comes before it is noticed that its former self has gone.

        One at a time does, or those who are refused would hold the threads that are meant for everybody else.
        """
        if self._is_hoped_for:
            return False
        self._is_hoped_for = True
        try:
            return self._changed.wait_for(lambda: self._free > 0, _LEAVING)
        finally:
            self._is_hoped_for = False

    def give_back(self) -> None:
        """Hold one less."""
        with self._changed:
            self._free += 1
            self._changed.notify()

    @contextmanager
    def held(self, status: int, code: str, what: str) -> Iterator[None]:
        """Hold one while in the block. Arguments and errors as :meth:`take`."""
        self.take(status, code, what)
        try:
            yield
        finally:
            self.give_back()
