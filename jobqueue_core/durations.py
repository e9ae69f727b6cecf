"""Durations and sizes as people write them: ``1h30m`` <-> timedelta, ``1MiB`` <-> bytes."""

from __future__ import annotations

import re
from datetime import timedelta

__all__ = ["Duration", "format_duration", "format_size", "parse_duration", "parse_size", "plain", "to_timedelta"]

Duration = timedelta | str
"""What every option that takes a duration accepts: a timedelta, or text such as ``"30s"``."""

_UNITS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_DURATION = re.compile(r"(?=\d)(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?", re.ASCII)
_SIZE = re.compile(r"(\d+)(B|KiB|MiB|GiB)?", re.ASCII)
_SIZES = {None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_LONGEST = timedelta(days=36_500)


def parse_duration(text: str) -> timedelta:
    """Read ``"500ms"``, ``"10s"``, ``"1.5s"``, ``"5m"``, ``"1h30m"`` or ``"2d"``: each unit once, largest first.

    Raises:
        ValueError: The text is not a duration, or is longer than 100 years.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        msg = f"{text!r} is not a duration such as '500ms', '30s', '5m', '1h30m' or '2d'"
        raise ValueError(msg)
    try:
        milliseconds = sum(float(number) * size for number, size in zip(match.groups(), _UNITS.values(), strict=True) if number)
        duration = timedelta(milliseconds=milliseconds)
    except OverflowError:
        duration = timedelta.max
    if duration > _LONGEST:
        msg = f"{text!r} is longer than 100 years"
        raise ValueError(msg)
    return duration


def to_timedelta(value: Duration) -> timedelta:
    """Turn text, or a timedelta of whatever class, into a plain timedelta.

    Raises:
        ValueError: The text is not a duration, or the duration is negative or longer than 100 years.
        TypeError: *value* is neither.
    """
    if isinstance(value, str):
        return parse_duration(value)
    if not isinstance(value, timedelta):
        msg = f"expected a duration (text such as '30s', or a timedelta), got {type(value).__name__} {value!r}"
        raise TypeError(msg)
    if not timedelta(0) <= value <= _LONGEST:
        msg = f"{value} is not a duration between 0 and 100 years"
        raise ValueError(msg)
    return plain(value)


def plain(value: timedelta) -> timedelta:
    """*value* as a timedelta and nothing more: classes of other libraries derive from it, and cannot be written down."""
    return value if type(value) is timedelta else timedelta.__add__(timedelta(0), value)


def format_duration(duration: timedelta) -> str:
    """Write *duration* so that :func:`parse_duration` reads it back, to the millisecond: ``1h30m``, ``1s500ms``."""
    rest = round(duration / timedelta(milliseconds=1))
    parts = []
    for unit, size in _UNITS.items():
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def parse_size(text: str) -> int:
    """Read ``"512KiB"`` or ``"1MiB"`` as a number of bytes.

    Raises:
        ValueError: The text is not a size.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        msg = f"{text!r} is not a size such as '512KiB' or '1MiB'"
        raise ValueError(msg)
    return int(match[1]) * _SIZES[match[2]]


def format_size(size: int) -> str:
    """Write *size* bytes so that :func:`parse_size` reads it back."""
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % _SIZES[unit] == 0:
            return f"{size // _SIZES[unit]}{unit}"
    return f"{size}B"
