"""This process's own file descriptors, which a handler may close without knowing what they are (``os.close``, ``os.closerange``)."""

from __future__ import annotations

import logging
import os
from typing import Final

__all__ = ["Descriptors"]

_log = logging.getLogger("jobqueue.child")
_STANDARD: Final = {0: "stdin", 1: "stdout", 2: "stderr"}


class Descriptors:
    """Looks after descriptors that this process cannot do without.

    Closed standard ones are opened again: whoever writes to number 2 next would write into whatever has got that number since. Of the others
    one can only say that they are gone.

    Args:
        needed: Those that cannot be replaced.
    """

    def __init__(self, *needed: int) -> None:
        self.alarm, self._guard = os.pipe()
        """Can be read from (it hangs up) as soon as somebody closes all there is: before broker and files get each other's numbers."""
        self._spares = {number: os.dup(number) for number in _STANDARD if _identity(number) is not None}
        self._needed = {number: _identity(number) for number in (*needed, self.alarm, self._guard)}

    def gone(self) -> bool:
        """Whether one that is needed has been closed, or is something else by now."""
        return any(_identity(number) != before for number, before in self._needed.items())

    def mend(self) -> None:
        """Open standard ones again that have been closed."""
        for number, spare in self._spares.items():
            if _identity(number) is None and _identity(spare) is not None:
                os.dup2(spare, number)
                _log.warning("%s had been closed, by a handler perhaps; it is open again", _STANDARD[number])


def _identity(number: int) -> tuple[int, int] | None:
    """What is behind a descriptor; None when it is closed."""
    try:
        facts = os.fstat(number)
    except OSError:
        return None
    return facts.st_dev, facts.st_ino
