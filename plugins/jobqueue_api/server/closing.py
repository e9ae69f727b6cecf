"""That this process is about to stop: heard by what would otherwise hold a thread for long, such as streams and waits."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["Closing"]


class Closing:
    """Begins once, when the process is told to stop. Any thread may begin it, ask, or wait for it; a signal handler may not."""

    def __init__(self) -> None:
        self._begun = threading.Event()
        self._lock = threading.Lock()
        self._listeners: list[Callable[[], None]] = []

    @property
    def begun(self) -> bool:
        """Whether it has begun."""
        return self._begun.is_set()

    def begin(self) -> None:
        """Begin; does nothing if it has begun already."""
        with self._lock:
            if self._begun.is_set():
                return
            self._begun.set()
            listeners = list(self._listeners)
        for listener in listeners:
            listener()

    def wait(self, seconds: float) -> bool:
        """Wait up to so many seconds for it to begin; True when it has."""
        return self._begun.wait(seconds)

    def listen(self, listener: Callable[[], None]) -> None:
        """Call *listener* once when it begins, in the thread that begins it; at once if it has begun already."""
        with self._lock:
            if not self._begun.is_set():
                self._listeners.append(listener)
                return
        listener()
