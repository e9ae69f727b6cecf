"""Cron expressions: text -> a checked search over wall times. No time zone is known here."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

import attrs
from croniter import croniter  # type: ignore[import-untyped] # it ships no types

from jobqueue_core.errors import InvalidSchedule

from .fields import DAY, FIELDS, HOUR, MINUTE, MONTH, WEEKDAY, Field, FieldKind

__all__ = ["FIRST", "LAST", "Expression", "read_expression"]

FIRST: Final = datetime(1, 1, 3)  # noqa: DTZ001 - a wall time
LAST: Final = datetime(9999, 12, 29)  # noqa: DTZ001 - a wall time
"""All wall times lie in [FIRST, LAST): away from the ends of what ``datetime`` can hold, so that no offset leads out of it."""

_SECOND: Final = timedelta(seconds=1)
_LONGEST: Final = 200
_FEWEST_FIELDS: Final = 5

_ALIASES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


@attrs.frozen(kw_only=True, eq=False)
class Expression:
    """A checked expression, as a search over wall times: naive, on whole seconds.

    Not for two threads at once: croniter keeps its place in itself.
    """

    text: str
    is_fixed: bool
    """Whether it names fixed times of the day; if not, it is an interval.

    cron(8) of Debian: "Local time changes of less than three hours [...] only apply to tasks that run at a specific time and tasks that are
    run with a granularity greater than one hour"; in its code, those whose minute and hour do both not begin with ``*``.
    """
    _searches: tuple[croniter, ...] = attrs.field(alias="searches")

    def next(self, wall: datetime) -> datetime | None:
        """The first wall time later than *wall*."""
        since = max(wall, FIRST - _SECOND)
        found = [at for search in self._searches if (at := _searched(search, since, forwards=True))]
        return min(found, default=None)

    def last(self, wall: datetime) -> datetime | None:
        """The last wall time not later than *wall*."""
        until = min(wall + _SECOND, LAST)
        found = [at for search in self._searches if (at := _searched(search, until, forwards=False))]
        return max(found, default=None)


def read_expression(text: str) -> Expression:
    """Read 5 fields, 6 with seconds first, or an alias such as ``@daily``.

    Raises:
        InvalidSchedule: It is wrong, or what it names never happens.
    """
    fields = dict(_fields(text))
    searches = tuple(search for line in _lines(fields) if _ever_matches(search := _search(line)))
    if not searches:
        month, day, weekday = (fields[kind].text for kind in (MONTH, DAY, WEEKDAY))
        raise InvalidSchedule("expression", f"it never happens: no date has day of month {day}, month {month} and day of week {weekday}")
    is_fixed = not (fields[MINUTE].starts_with_star or fields[HOUR].starts_with_star)
    return Expression(text=text, is_fixed=is_fixed, searches=searches)


def _fields(text: object) -> Iterator[tuple[FieldKind, Field]]:
    words = _words(text)
    if words[0].startswith("@"):
        alias = " ".join(words)
        if alias not in _ALIASES:
            raise InvalidSchedule("expression", f"{alias!r} is none of {', '.join(_ALIASES)}")
        words = _ALIASES[alias].split()
    _check_count(len(words))
    for kind, word in zip(FIELDS[-len(words) :], words, strict=True):
        yield kind, kind.read(word)


def _words(text: object) -> list[str]:
    if not isinstance(text, str):
        raise InvalidSchedule("expression", f"expected text such as '30 2 * * *', got {type(text).__name__}")
    if len(text) > _LONGEST:
        raise InvalidSchedule("expression", f"is {len(text)} characters long, more than {_LONGEST}")
    if not text.isascii() or not text.replace("\t", " ").strip().isprintable():
        raise InvalidSchedule("expression", f"{text!r} has characters that no cron expression has")
    if not text.strip():
        raise InvalidSchedule("expression", "is empty; write 5 fields such as '30 2 * * *', or an alias such as @daily")
    return text.lower().split()


def _check_count(count: int) -> None:
    if count == len(FIELDS) + 1:
        raise InvalidSchedule("expression", f"{count} fields: a year is not supported; write 5, or 6 with seconds first")
    if not _FEWEST_FIELDS <= count <= len(FIELDS):
        names = ", ".join(kind.name for kind in FIELDS[-_FEWEST_FIELDS:])
        raise InvalidSchedule("expression", f"{count} field{'s' * (count != 1)}: write 5 ({names}), or 6 with seconds first")


def _lines(fields: dict[FieldKind, Field]) -> Iterator[str]:
    """Spell the fields as expressions that croniter has no choice about; any of them may match.

    A date must fit both, day of month and day of week, if one of them begins with ``*``; else either will do (cron(5) of Debian).
    croniter has this rule too (``implement_cron_bug``), but does not keep to it with ``mon#2``, which it always takes for "both".
    """
    if fields[DAY].starts_with_star or fields[WEEKDAY].starts_with_star:
        choices: tuple[dict[FieldKind, str], ...] = ({},)
    else:
        choices = ({WEEKDAY: "*"}, {DAY: "*"})
    for choice in choices:
        yield " ".join(choice.get(kind, field.spelled) for kind, field in fields.items())


def _search(line: str) -> croniter:
    return croniter(line, FIRST, ret_type=datetime, day_or=False, second_at_beginning=True)


def _ever_matches(search: croniter) -> bool:
    # croniter gives up after 50 years. A leap day on a Monday comes back within 40, all else sooner.
    return _searched(search, datetime(2000, 1, 1), forwards=True) is not None  # noqa: DTZ001 - a wall time


def _searched(search: croniter, wall: datetime, *, forwards: bool) -> datetime | None:
    try:
        at: datetime = search.get_next(start_time=wall) if forwards else search.get_prev(start_time=wall)
    except (ValueError, OverflowError):  # nothing found, or nothing up to the end of what datetime can hold
        return None
    return at if FIRST <= at < LAST else None
