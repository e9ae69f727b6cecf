"""Instants as PostgreSQL counts them, and as cursors carry them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from jobqueue_core.errors import InvalidJob

__all__ = ["cursor_instant", "instant_of_cursor", "pg_microseconds"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PG_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def pg_microseconds(instant: datetime) -> int:
    """*instant* (aware) as timestamptz stands in a binary COPY."""
    since = instant - _PG_EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def cursor_instant(instant: datetime) -> str:
    """*instant* (aware) for a cursor."""
    return str((instant - _EPOCH) // _MICROSECOND)


def instant_of_cursor(text: str, cursor: str) -> datetime:
    """What :func:`cursor_instant` was given.

    Raises:
        InvalidJob: *text*, a part of *cursor*, is nothing of the kind.
    """
    try:
        if text.removeprefix("-").isdecimal() and text.isascii():
            return _EPOCH + timedelta(microseconds=int(text))
    except (OverflowError, ValueError):
        pass
    raise InvalidJob("cursor", f"{cursor!r:.60} is not a cursor of this list")
