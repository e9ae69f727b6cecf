"""Ends plain Python code in another thread: raises :class:`Interrupted` there, while a handler runs and at no other moment.

The interpreter offers ``PyThreadState_SetAsyncExc`` for that: the exception comes up at the thread's next bytecode. A thread that waits in C (a
long ``time.sleep``, a socket without a timeout) notices when that returns, which may be never; see docs/decisions/0021-ending-a-thread.md.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import get_ident
from typing import TYPE_CHECKING, Final, TypeVar

import jobqueue_core
from jobqueue_core.handlers import HandlerSpec
from jobqueue_core.signals import Interrupted

if TYPE_CHECKING:
    from types import FrameType

    from jobqueue_core.context import JobContext

__all__ = ["interrupt", "interruptible"]

T = TypeVar("T")


class _Nothing:
    """What a call has returned that has not."""


_TRIES: Final = 10
_SLICE: Final = 0.05
_NEVER_CUT_OFF: Final = (str(Path(logging.__file__).parent), "<frozen importlib", str(Path(jobqueue_core.__file__).parent))
"""``logging`` and imports take locks by ``acquire()``: cut off right after it, they would keep them for ever."""
_lock: Final = threading.Lock()
_NOTHING: Final = _Nothing()
_inside: Final[dict[JobContext, int]] = {}
"""Which threads are in which handler."""
_interrupted: Final[set[JobContext]] = set()


def interruptible(context: JobContext, call: Callable[[object, JobContext], T], payload: object) -> T:
    """Call *call* with *payload* and *context*, so that :func:`interrupt` can end it.

    Once this has returned or raised, no ``Interrupted`` can come up any more. One that comes too late, when *call* has returned, is swallowed.

    Raises:
        BaseException: What *call* raised, or Interrupted.
    """
    result: T | _Nothing = _NOTHING
    try:
        try:
            _inside[context] = get_ident()
            result = call(payload, context)
        finally:
            # On the way of every run: no lock here. See _leave for the other half.
            del _inside[context]
            if context in _interrupted:
                _leave(context)
    except Interrupted:
        # There is one at most: what it may have cut off is done again in peace.
        _inside.pop(context, None)
        _leave(context)
        if result is _NOTHING:
            raise
    return result  # type: ignore[return-value]  # nothing is left here only by raising


def _leave(context: JobContext) -> None:
    """Take back an interruption that has not come up yet.

    A thread that leaves takes itself off the list first and looks then whether it is to be interrupted; who interrupts notes that first and looks
    then who is on the list. So one of them sees the other, whatever the order.
    """
    with _lock:
        if context in _interrupted:
            _interrupted.discard(context)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(get_ident()), None)


def interrupt(context: JobContext) -> bool:
    """Raise ``Interrupted`` in the thread that is in the handler of *context*, once.

    Returns:
        False when that could not be done now: the thread is where it must not be cut off. Asking again later may do.
    """
    with _lock:
        for _ in range(_TRIES):
            ident = _inside.get(context)
            if ident is None or context in _interrupted or _raised_in(ident, context):
                return True
        return False


def _raised_in(ident: int, context: JobContext) -> bool:
    with _undisturbed():
        if _takes_locks_of_ours(sys._current_frames().get(ident)):  # noqa: SLF001 - public in all but name: documented in the sys module
            return False
        _interrupted.add(context)
        if context in _inside:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(Interrupted))
        else:
            _interrupted.discard(context)
        return True


def _takes_locks_of_ours(frame: FrameType | None) -> bool:
    """Whether a handler is inside of code that takes locks which the worker needs too, and not all of it by ``with``."""
    while frame is not None and frame.f_code not in _BEFORE_THE_HANDLER:
        if frame.f_code.co_filename.startswith(_NEVER_CUT_OFF):
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep the interpreter to this thread for some steps: where another one is found, there it stays meanwhile."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SLICE)
    try:
        # Others run meanwhile; and who waits for the interpreter has been told the former interval.
        time.sleep(2 * before)
        yield
    finally:
        sys.setswitchinterval(before)


_BEFORE_THE_HANDLER: Final = {interruptible.__code__, HandlerSpec.call.__code__}
