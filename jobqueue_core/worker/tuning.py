"""What a process does to itself while it is a worker: interpreter settings, signals, and a look at its own size."""

from __future__ import annotations

import contextlib
import gc
import resource
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jobqueue_core.service import Stop, StopLevel

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["resident_bytes", "stopped_by_signals", "tuned"]

_SWITCH_INTERVAL: Final = 0.0005
"""Beside one handler thread that computes, the default of 5 ms costs two thirds of the throughput."""
_GC_THRESHOLDS: Final = (20_000, 20, 20)
"""The default was the largest source of pauses of the event loop."""


@contextlib.contextmanager
def tuned() -> Iterator[None]:
    """Interpreter settings that were measured to pay for a worker; put back afterwards."""
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(_SWITCH_INTERVAL)
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        gc.set_threshold(*thresholds)
        gc.unfreeze()


@contextlib.contextmanager
def stopped_by_signals(stop: Stop) -> Iterator[None]:
    """SIGTERM and SIGINT raise *stop*, a second one to the utmost; only in the main thread, where Python lets us."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def told(_number: int, _frame: object) -> None:
        # Not under the handler's own frame: it may have interrupted somebody who holds the lock that request() takes.
        level = StopLevel.AT_ONCE if stop.level else StopLevel.GRACEFUL
        threading.Thread(target=stop.request, args=(level,), daemon=True).start()

    before = [(one, signal.signal(one, told)) for one in (signal.SIGTERM, signal.SIGINT)]
    try:
        yield
    finally:
        for one, handler in before:
            signal.signal(one, handler)


def resident_bytes() -> int:
    """How much memory this process takes up; the most it ever took where the system does not say what it takes now."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * resource.getpagesize()
