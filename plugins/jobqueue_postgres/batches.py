"""Batches cut into what one statement can bring."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

__all__ = ["by_size"]

T = TypeVar("T")

_STATEMENT_BYTES: Final = 32 << 20
"""What one statement brings, roughly: a server takes no more than 1 GB at once."""


def by_size(items: Sequence[T], size: Callable[[T], int]) -> Iterator[Sequence[T]]:
    """*items* in order, in as few parts as have each no more bytes by *size* than a statement should bring, or one item."""
    begin = total = 0
    for number, item in enumerate(items):
        brought = size(item)
        if number > begin and total + brought > _STATEMENT_BYTES:
            yield items[begin:number]
            begin, total = number, 0
        total += brought
    if items:
        yield items[begin:]
