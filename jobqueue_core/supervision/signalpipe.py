"""Signals as something to read: a process that waits for several things at once waits for signals too."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from types import FrameType

__all__ = ["SignalPipe"]


class SignalPipe:
    """From now on *heard* signals do nothing but arrive in this pipe, and *ignored* ones nothing at all. For the main thread, once a process.

    What was sent while a parent had these signals blocked (see ``childprocess.py``) arrives as well.
    """

    def __init__(self, heard: Iterable[signal.Signals], ignored: Iterable[signal.Signals] = ()) -> None:
        heard, ignored = tuple(heard), tuple(ignored)
        self.fd, writer = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(writer, False)
        # Written by the interpreter's own C handler, also while the main thread waits in a system call or runs a handler's code.
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for one in heard:
            signal.signal(one, _nothing)
        for one in ignored:
            signal.signal(one, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (*heard, *ignored))

    def take(self) -> tuple[int, ...]:
        """The signals that have arrived since the last call, in order; waits for none."""
        try:
            return tuple(os.read(self.fd, 4096))
        except BlockingIOError:
            return ()


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """A handler in Python is what makes the interpreter write to the pipe."""
