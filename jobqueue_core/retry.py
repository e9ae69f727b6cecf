"""How long to wait before a job is tried again."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Literal, get_args

import attrs

from jobqueue_core.durations import to_timedelta

__all__ = ["Jitter", "RetryPolicy"]

Jitter = Literal["full", "equal", "decorrelated", "none"]
Uniform = Callable[[float, float], float]


def _known_jitter(_instance: object, _attribute: object, value: str) -> None:
    if value not in get_args(Jitter):
        msg = f"jitter must be one of {', '.join(get_args(Jitter))}, not {value!r}"
        raise ValueError(msg)


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """Exponential backoff with jitter.

    The formulas are those of "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015), with ``d = min(base * 2**n, max)`` before
    retry *n*, counted from 0: ``none`` waits d; ``full`` random(0, d); ``equal`` d/2 + random(0, d/2); ``decorrelated``
    min(max, random(base, previous * 3)).

    Raises:
        ValueError: A duration cannot be read, *max* is below *base*, or *jitter* is unknown.
    """

    base: timedelta = attrs.field(default=timedelta(seconds=10), converter=to_timedelta)
    max: timedelta = attrs.field(default=timedelta(hours=1), converter=to_timedelta)
    jitter: Jitter = attrs.field(default="full", validator=_known_jitter)

    def __attrs_post_init__(self) -> None:
        if self.max < self.base:
            msg = f"retry max ({self.max}) is shorter than base ({self.base})"
            raise ValueError(msg)

    def delay(self, retry_count: int, previous: timedelta | None = None, *, uniform: Uniform = random.uniform) -> timedelta:
        """How long to wait before the next retry.

        Args:
            retry_count: Retries so far; 0 before the first.
            previous: The delay before the last retry; used by decorrelated jitter only. None counts as *base*.
            uniform: Draws a float between two bounds; replaced in tests.
        """
        base, longest = self.base.total_seconds(), self.max.total_seconds()
        # 2**64 base units is beyond any max: the exponent is bounded so that a large count cannot overflow.
        grown = min(base * 2 ** min(retry_count, 64), longest)
        match self.jitter:
            case "none":
                seconds = grown
            case "full":
                seconds = uniform(0, grown)
            case "equal":
                seconds = grown / 2 + uniform(0, grown / 2)
            case _:
                last = base if previous is None else previous.total_seconds()
                seconds = min(longest, uniform(base, max(base, last * 3)))
        return timedelta(seconds=seconds)
