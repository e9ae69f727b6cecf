"""Long lists in steps that one script carries out in little time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

__all__ = ["steps"]

T = TypeVar("T")
_MOST_BYTES: Final = 1 << 20
"""About 3 ms of the server's time."""
_ENVELOPE: Final = 128
"""Bytes counted for an item beside its *size*."""


def steps(items: Sequence[T], most: int, *, size: Callable[[T], int] = lambda _: 0) -> Iterator[Sequence[T]]:
    """*items* in order, at most *most* and, by their *size* in bytes, at most 1 MiB at a time; an item that is larger goes alone."""
    start = total = 0
    for position, item in enumerate(items):
        length = size(item) + _ENVELOPE
        if position - start == most or (total + length > _MOST_BYTES and position > start):
            yield items[start:position]
            start, total = position, 0
        total += length
    if start < len(items):
        yield items[start:]
