"""Ends plain Python code in another thread: raises :class:`Interrupted` there, while a handler runs and at no other moment.

The interpreter offers ``PyThreadState_SetAsyncExc`` for that: the exception comes up at the thread's next bytecode. A thread that waits in C (a
long ``time.sleep``, a socket without a timeout) notices when that returns, which may be never; see docs/decisions/0021-ending-a-thread.md.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from jobqueue_core.signals import Interrupted

if TYPE_CHECKING:
    from jobqueue_core.context import JobContext

__all__ = ["interrupt", "interruptible"]

T = TypeVar("T")

_lock: Final = threading.Lock()
_inside: Final[dict[JobContext, int]] = {}
"""Which threads are in which handler."""
_interrupted: Final[set[JobContext]] = set()


def interruptible(context: JobContext, call: Callable[[], T]) -> T:
    """Call *call* so that :func:`interrupt` can end it.

    Once this has returned or raised, no ``Interrupted`` can come up any more. One that comes too late, when *call* has returned, is swallowed.

    Raises:
        BaseException: What *call* raised, or Interrupted.
    """
    results: list[T] = []
    try:
        try:
            _inside[context] = threading.get_ident()
            results.append(call())
        finally:
            _leave(context)
    except Interrupted:
        # There is one at most: what it may have cut off is done again in peace.
        _leave(context)
        if not results:
            raise
    return results[0]


def _leave(context: JobContext) -> None:
    with _lock:
        ident = _inside.pop(context, None)
        if context in _interrupted:
            _interrupted.discard(context)
            # Perhaps it has not come up yet.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident or threading.get_ident()), None)


def interrupt(context: JobContext) -> bool:
    """Raise ``Interrupted`` in the thread that is in the handler of *context*, once; False when none is, or it has been done before."""
    with _lock:
        ident = _inside.get(context)
        if ident is None or context in _interrupted:
            return False
        _interrupted.add(context)
        return bool(ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(Interrupted)))
