"""The access log: one line a request, written by a thread of its own.

Threads that answer requests would otherwise stand in line for the log's lock, each for as long as a write takes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobqueue_api.server.closing import Closing

__all__ = ["AccessLog"]

_log = logging.getLogger("jobqueue.api.access")
_PAUSE: Final = 0.05
_MOST: Final = 20_000
"""How many lines may wait; beyond, where nobody reads the log, lines are dropped and counted."""


class AccessLog:
    """Collects lines and has them written within moments.

    Args:
        closing: Once it begins, lines are written at once.
    """

    def __init__(self, closing: Closing) -> None:
        self._lines: deque[tuple[float, Mapping[str, Any]]] = deque()
        self._dropped = 0
        self._closing = closing
        self._starting = threading.Lock()
        self._writer: threading.Thread | None = None
        closing.listen(self.flush)

    def add(self, facts: Mapping[str, Any]) -> None:
        """Write a line of a request that has just been answered."""
        if not _log.isEnabledFor(logging.INFO):
            return
        if len(self._lines) >= _MOST:
            self._dropped += 1
            return
        self._lines.append((time.time(), facts))
        if self._closing.begun:
            self.flush()
        elif self._writer is None:
            self._start()

    def flush(self) -> None:
        """Write what waits."""
        while self._lines:
            try:
                at, facts = self._lines.popleft()
            except IndexError:
                return
            _write(at, "request", facts)
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            _write(time.time(), "requests not logged", {"requests": dropped})

    def _start(self) -> None:
        with self._starting:
            if self._writer is None:
                self._writer = threading.Thread(target=self._write_all, name="jobqueue-access-log", daemon=True)
                self._writer.start()

    def _write_all(self) -> None:
        while not self._closing.wait(_PAUSE):
            self.flush()
        self.flush()


def _write(at: float, event: str, facts: Mapping[str, Any]) -> None:
    record = _log.makeRecord(_log.name, logging.INFO, "", 0, event, (), None, extra={"fields": facts})
    record.created = at
    _log.handle(record)
