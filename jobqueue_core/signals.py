"""What a handler may raise to say how its run shall end, and what is raised in it to end it. Any other exception follows the retry policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobqueue_core.durations import Duration, to_timedelta

if TYPE_CHECKING:
    from datetime import timedelta

__all__ = ["Discard", "Interrupted", "Retry", "Snooze"]


class Retry(Exception):
    """Try again at a time of the handler's choosing; counts as an attempt.

    Args:
        reason: Kept as the job's ``last_error``.
        delay: How long to wait; None leaves it to the retry policy.
    """

    def __init__(self, reason: str = "the handler asked for a retry", *, delay: Duration | None = None) -> None:
        self.reason = reason
        self.delay: timedelta | None = None if delay is None else to_timedelta(delay)
        super().__init__(reason)


class Snooze(Exception):
    """Put the job off for *delay* without counting an attempt."""

    def __init__(self, delay: Duration) -> None:
        self.delay = to_timedelta(delay)
        super().__init__(f"snoozed for {delay}")


class Discard(Exception):
    """Give the job up at once: it is dead as ``discarded``, and its dead letter says why."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Interrupted(BaseException):
    """Raised in a plain ``def`` handler that was asked to stop (``ctx.cancelled``) and had not done so when its ``grace`` was over.

    It comes up between any two steps of the handler, so that ``finally`` and ``with`` can clean up. Do not catch it, or raise it again.
    """
