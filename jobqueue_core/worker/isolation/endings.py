"""How a run in a handler process may end without an outcome."""

from __future__ import annotations

from jobqueue_core.errors import JobQueueError

__all__ = ["CannotStart", "Elsewhere", "MemoryExceeded", "NotBegun", "ProcessDied", "Stopped"]


class CannotStart(JobQueueError):
    """A handler process could not be started, or not import or enter what it needs."""


class Elsewhere(Exception):
    """What was raised in a handler process; the text is its traceback there."""

    def __str__(self) -> str:
        """On lines of its own, so that it can be told from the traceback round it."""
        return f"\n{self.args[0]}"


class ProcessDied(Exception):
    """The process died while it ran a handler; the text says how."""


class MemoryExceeded(MemoryError):
    """The process was killed because it took more memory than its handler may; the text says how much."""


class NotBegun(Exception):
    """The process died before it had begun with the handler."""


class Stopped(Exception):
    """The run was asked to stop before its handler had begun."""
