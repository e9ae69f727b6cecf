"""Services that share a process: a role's own, and those that run within it, each in a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from jobqueue_core.service import Exit, Patience, Stop, StopLevel

if TYPE_CHECKING:
    from jobqueue_core.service import Service

__all__ = ["Companion", "run_with"]

_log = logging.getLogger("jobqueue.child")
_PATIENCE: Final = Patience().beyond_grace


class Companion:
    """A service in a thread. When it ends it stops the one it runs beside, for the process is to be replaced whole.

    Args:
        name: The service's name.
        open_service: Makes it, in its thread: it may have to wait for what the other does not need. None when it was told to stop meanwhile.
        stop: Tells both when to stop.
    """

    def __init__(self, name: str, open_service: Callable[[], Service | None], stop: Stop) -> None:
        self.name = name
        self.failure: BaseException | None = None
        """What it broke of."""
        self._open = open_service
        self._stop = stop
        self._thread = threading.Thread(target=self._run, name=f"jobqueue-{name}")

    def start(self) -> None:
        """Run it."""
        self._thread.start()

    def join(self, patience: float | None = None) -> None:
        """Wait for its end, at most so many seconds: what hangs must not keep its process from ending, and from being replaced."""
        self._thread.join(patience)
        if self._thread.is_alive():
            _log.warning("does not end", extra={"fields": {"service": self.name}})

    def _run(self) -> None:
        try:
            service = self._open()
            if service is not None:
                service.run(self._stop)
        except BaseException as error:  # noqa: BLE001 - it is raised again in the main thread
            self.failure = error
        finally:
            # Also when it has ended by itself: the other would go on without what it did.
            self._stop.request(StopLevel.GRACEFUL)


def run_with(companions: Sequence[Companion], main: Callable[[], Exit], stop: Stop, *, patience: timedelta = _PATIENCE) -> Exit:
    """Run *main* in the calling thread, and *companions* beside it; all end when one of them does.

    Args:
        companions: Not started yet.
        main: Runs a service that obeys *stop*.
        stop: What the companions obey too.
        patience: How long to wait for the companions when *main* has ended.

    Raises:
        BaseException: What *main* raised, else what the first companion did.
    """
    started: list[Companion] = []
    try:
        for one in companions:
            one.start()
            started.append(one)
        status = main()
    finally:
        stop.request(StopLevel.GRACEFUL)
        for one in started:
            one.join(patience.total_seconds())
    for one in companions:
        if one.failure is not None:
            raise one.failure
    return status
