"""Long lists in portions that one script carries out in little time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

__all__ = ["portions"]

T = TypeVar("T")


def portions(items: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    """*items* in order, at most *most* at a time."""
    for start in range(0, len(items), most):
        yield items[start : start + most]
