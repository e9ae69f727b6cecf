"""Query strings: from text to the struct that an operation declares, strictly and with every fault named.

What is not declared is refused: a filter with a slip in its name must not become no filter at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Annotated, Any, Final, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from jobqueue_core.errors import InvalidJob
from jobqueue_core.requests import check_duration

from .bodies import duration_of

__all__ = ["Cursor", "Instant", "Limit", "Offset", "Query", "WrittenDuration", "read_duration", "read_query"]

_SECONDS: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,6})?", re.ASCII)
_WHOLE: Final = re.compile(r"-?[0-9]{1,18}", re.ASCII)

Limit = Annotated[int, Meta(ge=1, le=500, description="At most so many.")]
Offset = Annotated[int, Meta(ge=0, le=10_000, description="Skip so many; the cursor goes further, and costs less.")]
Cursor = Annotated[str, Meta(min_length=1, max_length=4_096, description="Where a former page ended: as its Link header says.")]
Instant = Annotated[datetime, Meta(tz=True)]
WrittenDuration = Annotated[
    str, Meta(examples=["10s", "1h30m"], description='A duration such as "500ms", "10s" or "1h30m", or a number of seconds.', max_length=40)
]


class Query(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The parameters of an operation; each has a default."""


Q = TypeVar("Q", bound=Query)


def read_query(kind: type[Q], given: Mapping[str, str | list[str]]) -> Q:
    """Make a *kind* of the parameters *given*.

    Raises:
        InvalidJob: One is unknown, given twice, or wrong; with its name.
    """
    readers = _readers(kind)
    values: dict[str, Any] = {}
    for name, text in given.items():
        if name not in readers:
            known = ", ".join(readers)
            raise InvalidJob(name[:60], f"is not a parameter of this operation; there {f'are {known}' if known else 'are none'}")
        if not isinstance(text, str):
            raise InvalidJob(name, "is given more than once")
        values[name] = readers[name](text, name)
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise _named(error) from error


def read_duration(text: str | None, name: str) -> timedelta | None:
    """A duration as a query string writes it: ``10s``, or a number of seconds; None for none.

    Raises:
        InvalidJob: It is neither.
    """
    if text is None:
        return None
    return check_duration(duration_of(float(text)) if _SECONDS.fullmatch(text) else text, name)


def _named(error: msgspec.ValidationError) -> InvalidJob:
    problem, _, path = str(error).partition(" - at `$.")
    return InvalidJob(path.rstrip("`") or "query", problem.replace("`", ""))


@cache
def _readers(kind: type[Query]) -> Mapping[str, Callable[[str, str], Any]]:
    hints = get_type_hints(kind, include_extras=True)
    return {name: _reader(hints[name]) for name in kind.__struct_fields__}


def _reader(kind: Any) -> Callable[[str, str], Any]:
    """What reads a parameter whose declared type is *kind*."""
    kinds = _kinds(kind)
    if bool in kinds:
        return _flag
    if int in kinds:
        return _whole
    return _instant if datetime in kinds else lambda text, _name: text


def _kinds(kind: Any) -> set[Any]:
    if get_origin(kind) is Annotated:
        return _kinds(get_args(kind)[0])
    if get_origin(kind) is Literal or not get_args(kind):
        return {kind}
    return set().union(*(_kinds(one) for one in get_args(kind)))


def _flag(text: str, name: str) -> bool:
    if text not in ("true", "false"):
        raise InvalidJob(name, f"{text!r:.60} is neither true nor false")
    return text == "true"


def _whole(text: str, name: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise InvalidJob(name, f"{text!r:.60} is not a whole number")
    return int(text)


def _instant(text: str, name: str) -> datetime:
    try:
        # A "+" that was not escaped arrives as a space.
        return msgspec.convert(text.replace(" ", "+"), Instant).astimezone(UTC)
    except (msgspec.ValidationError, OverflowError) as error:
        raise InvalidJob(name, f"{text!r:.60} is not a time with its offset, such as 2026-01-31T12:00:00Z") from error
