"""What operators write on the command line, read into what the client takes."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import attrs
import click

from jobqueue_core.durations import parse_duration
from jobqueue_core.errors import InvalidPayload
from jobqueue_core.payload import decode_json

__all__ = ["COUNT", "DURATION", "INSTANT", "LIMIT", "MOMENT", "PAYLOAD", "Payload", "read_metadata"]

_SPACED_OFFSET: Final = re.compile(r"\s+(?=(?:[+-]\d\d:?\d\d|Z)$)")
_DATE: Final = re.compile(r"\d{4}-")
_EXAMPLE: Final = "as in '2026-11-25T10:00:00Z' or '2026-11-25 10:00+01:00'"

LIMIT: Final = click.IntRange(min=1)
COUNT: Final = click.IntRange(1, 500)
"""As :data:`LIMIT`, of what has no pages."""


@attrs.frozen
class Payload:
    """A payload that was given; it may be null."""

    value: Any


class DurationType(click.ParamType[timedelta]):
    """A duration: ``30s``, ``1h30m``."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Read it."""
        try:
            return parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class InstantType(click.ParamType[datetime]):
    """A time with its offset from UTC."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read it, and bring it to UTC."""
        try:
            instant = datetime.fromisoformat(_SPACED_OFFSET.sub("", str(value).strip()))
            if instant.tzinfo is None:
                self.fail(f"{value!r} does not say in which time zone: add 'Z' for UTC, or the offset, {_EXAMPLE}", param, ctx)
            return instant.astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a time, {_EXAMPLE}", param, ctx)


class MomentType(click.ParamType[datetime | timedelta]):
    """A time with its offset from UTC, or how long ago it was: ``1h`` (``Cli.moment`` makes a time of it)."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime | timedelta:
        """Read it."""
        text = str(value).strip()
        try:
            return parse_duration(text)
        except ValueError as error:
            if not _DATE.match(text):
                self.fail(f"{value!r} is neither how long ago (1h, 30m, 2d) nor a time, {_EXAMPLE}: {error}", param, ctx)
        return INSTANT.convert(value, param, ctx)


class PayloadType(click.ParamType[Payload]):
    """JSON text, ``@file``, or ``-`` for stdin."""

    name = "json"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Payload:
        """Read it."""
        text = str(value)
        try:
            if text == "-":
                return Payload(decode_json(sys.stdin.buffer.read()))
            if text.startswith("@"):
                return Payload(decode_json(Path(text[1:]).read_bytes()))
            return Payload(decode_json(text))
        except OSError as error:
            self.fail(f"{text[1:]}: {error.strerror or error}", param, ctx)
        except InvalidPayload as error:
            self.fail(error.problem, param, ctx)


DURATION: Final = DurationType()
INSTANT: Final = InstantType()
MOMENT: Final = MomentType()
PAYLOAD: Final = PayloadType()


def read_metadata(_ctx: click.Context, _parameter: click.Parameter, pairs: Sequence[str]) -> dict[str, str]:
    """Read ``k=v`` pairs.

    Raises:
        click.BadParameter: One has no equals sign.
    """
    metadata = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{pair!r} is not key=value")
        metadata[key] = value
    return metadata
