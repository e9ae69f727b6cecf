"""A pipe into which nobody writes: when the one who holds its other end dies, the kernel kills the whole process group of the one who is tied to it.

That needs no thread of ours to run, and so also ends a handler that keeps the interpreter to itself, and what it has started.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal

__all__ = ["tie"]


def tie(fd: int) -> None:
    """Tie this process group to the pipe whose reading end is *fd*. Does nothing where the system cannot do it (not Linux)."""
    if not hasattr(fcntl, "F_SETSIG"):
        return
    os.set_inheritable(fd, False)  # noqa: FBT003 - its parameter has no name
    fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(fd, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    if poller.poll(0):
        # It has ended before this was done.
        os.killpg(0, signal.SIGKILL)
