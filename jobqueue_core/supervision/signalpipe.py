"""Signals as something to read: a process that waits for several things at once waits for signals too."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable
from types import FrameType
from typing import Final

__all__ = ["SignalPipe", "default_signals_in_copies"]


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
        # Ignored likewise, and not by SIG_IGN: that would be inherited by whatever handlers start.
        for one in (*heard, *ignored):
            signal.signal(one, _nothing)
        self._heard = frozenset(heard)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (*heard, *ignored))
        # A copy that a handler forks would tell us of its own signals: to terminate it would stop the worker.
        default_signals_in_copies()

    def take(self) -> tuple[int, ...]:
        """The signals heard that have arrived since the last call, in order; waits for none."""
        try:
            return tuple(number for number in os.read(self.fd, 4096) if number in self._heard)
        except BlockingIOError:
            return ()


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """A handler in Python is what makes the interpreter write to the pipe."""


def default_signals_in_copies() -> None:
    """Let the signals that end a process do so in copies of this one that somebody forks."""
    os.register_at_fork(before=_hold_signals, after_in_parent=_release_signals, after_in_child=_default_signals)


_ENDING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_mask = threading.local()


def _hold_signals() -> None:
    # What is sent to the copy before it has its own ways would be lost.
    _mask.before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)


def _release_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _mask.before)


def _default_signals() -> None:
    signal.set_wakeup_fd(-1)
    for one in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _release_signals()
