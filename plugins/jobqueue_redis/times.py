"""Instants and durations as Redis keeps them: whole microseconds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final, overload

__all__ = ["duration_ms", "duration_us", "from_us", "to_us"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@overload
def to_us(instant: datetime) -> int: ...
@overload
def to_us(instant: None) -> None: ...
@overload
def to_us(instant: datetime | None) -> int | None: ...
def to_us(instant: datetime | None) -> int | None:
    """*instant* (aware) in microseconds since the epoch; None stays None."""
    return None if instant is None else (instant - _EPOCH) // _MICROSECOND


@overload
def from_us(instant_us: int) -> datetime: ...
@overload
def from_us(instant_us: None) -> None: ...
@overload
def from_us(instant_us: int | None) -> datetime | None: ...
def from_us(instant_us: int | None) -> datetime | None:
    """What :func:`to_us` was given."""
    return None if instant_us is None else _EPOCH + timedelta(microseconds=instant_us)


def duration_us(duration: timedelta) -> int:
    """*duration* in microseconds."""
    return duration // _MICROSECOND


def duration_ms(duration: timedelta) -> int:
    """*duration* in milliseconds, at least one."""
    return max(duration // timedelta(milliseconds=1), 1)
